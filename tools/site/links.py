"""Links of docs/ to files outside it, which GitHub shows, as downloads. A Sphinx extension."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

LINK = re.compile(r"\]\((\.\./[^)\s#]+)\)")


def _read(app: Any, page: str, source: list[str]) -> None:
    folder = Path(app.env.doc2path(page)).parent

    def to_download(found: re.Match[str]) -> str:
        target = Path(os.path.normpath(folder / found[1]))
        outside = not target.is_relative_to(app.srcdir)
        return f"](path:{found[1]})" if outside else found[0]

    source[0] = LINK.sub(to_download, source[0])


def setup(app: Any) -> dict[str, Any]:
    """Sphinx calls this."""
    app.connect("source-read", _read)
    return {"parallel_read_safe": True}
