"""README.md for a package index, where links within the repository lead nowhere.

`python -m tools.index_readme https://example.org/owner/name` makes them absolute, for a build; the
file in the repository keeps the short ones, which its tests follow.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

from keras_mpt.version import __version__

README = Path(__file__).parents[1] / "README.md"
# A link or a picture to a file of the repository.
_LINK = re.compile(r"(!?)\[([^\]]*)\]\((?!\w+:|#)([^)\s]+)\)")


def for_index(text: str, address: str, tag: str) -> str:
    """The text with absolute links.

    Args:
        text: string. The README.
        address: string. The repository's, as GitHub lays it out.
        tag: string. What a file is shown as of.
    """

    def absolute(found: re.Match[str]) -> str:
        # A picture is fetched as it is, a page is shown.
        way = "raw" if found[1] else "blob"
        return f"{found[1]}[{found[2]}]({address.rstrip('/')}/{way}/{tag}/{found[3]})"

    return _LINK.sub(absolute, text)


def main(address: str) -> None:
    """Rewrites README.md; `git checkout README.md` brings the other back."""
    README.write_text(for_index(README.read_text(), address, f"v{__version__}"))


if __name__ == "__main__":
    main(*sys.argv[1:])
