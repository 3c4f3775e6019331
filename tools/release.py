"""Wheel and sdist for a package index: `python -m tools.release https://example.org/owner/name`.

The repository's files say nothing of where it lies, so a fork needs no edits. An index needs it:
there links within the repository lead nowhere, and people look for the source beside a package. So
a copy of the last commit gets the address (README's links and `[project.urls]`), is built, and what
came out is read again. The checkout stays as it is.
"""

from __future__ import annotations

import argparse
import email
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Sequence
from pathlib import Path

from keras_mpt.version import __version__

ROOT = Path(__file__).parents[1]
# A link or a picture to a file of the repository.
_LINK = re.compile(r"(!?)\[([^\]]*)\]\((?!\w+:|#)([^)\s]+)\)")
_ADDRESS = re.compile(r"https://[^\s/]+/\S*[^\s/]")


def for_index(text: str, address: str, tag: str) -> str:
    """A README with absolute links.

    Args:
        text: string. The README.
        address: string. The repository's, as GitHub lays it out.
        tag: string. What a file is shown as of.
    """

    def absolute(found: re.Match[str]) -> str:
        # A picture is fetched as it is, a page is shown.
        way = "raw" if found[1] else "blob"
        return f"{found[1]}[{found[2]}]({address}/{way}/{tag}/{found[3]})"

    return _LINK.sub(absolute, text)


def urls(address: str, tag: str, documentation: str | None = None) -> dict[str, str]:
    """The links beside a package on its index, by the names that an index knows."""
    return {
        "Homepage": address,
        "Documentation": documentation or f"{address}/blob/{tag}/docs/index.md",
        "Source": address,
        "Issues": f"{address}/issues",
        "Changelog": f"{address}/blob/{tag}/CHANGELOG.md",
    }


def addressed(folder: Path, address: str, documentation: str | None = None) -> None:
    """Writes the address into the files of a copy of the repository."""
    tag = f"v{__version__}"
    readme, project = folder / "README.md", folder / "pyproject.toml"
    readme.write_text(for_index(readme.read_text(), address, tag))
    table = [f'{name} = "{link}"' for name, link in urls(address, tag, documentation).items()]
    project.write_text(project.read_text() + "\n[project.urls]\n" + "\n".join(table) + "\n")


def metadata(file: Path) -> email.message.Message:
    """What a wheel or an sdist says of itself."""
    if file.suffix == ".whl":
        with zipfile.ZipFile(file) as wheel:
            name = next(n for n in wheel.namelist() if n.endswith(".dist-info/METADATA"))
            text = wheel.read(name)
    else:
        with tarfile.open(file) as sdist:
            member = sdist.extractfile(f"{file.name.removesuffix('.tar.gz')}/PKG-INFO")
            text = member.read() if member else b""
    return email.message_from_bytes(text)


def checked(file: Path, links: dict[str, str]) -> None:
    """Raises where a built file does not say what an index shows."""
    said = metadata(file)
    found = dict(line.split(", ", 1) for line in said.get_all("Project-URL", []))
    if found != links:
        raise ValueError(f"{file.name} should have the links {links}. Received: {found}")
    relative = [link[3] for link in _LINK.finditer(str(said.get_payload()))]
    if relative:
        raise ValueError(f"{file.name} should have absolute links alone. Received: {relative}")


def main(arguments: Sequence[str] | None = None) -> None:
    """Builds into dist/, whose files stay till the new ones are built and checked."""
    parser = argparse.ArgumentParser(description="Wheel and sdist for a package index")
    parser.add_argument("address", help="of the repository, as https://host/owner/name")
    parser.add_argument("--documentation", help="of the site; else docs/index.md of the repository")
    parser.add_argument("--into", type=Path, help="an empty folder; else dist/, anew")
    given = parser.parse_args(arguments)
    address = given.address.rstrip("/")
    if not _ADDRESS.fullmatch(address):
        parser.error(f"`address` should be as https://host/owner/name. Received: {given.address}")
    if given.into is not None and given.into.exists() and any(given.into.iterdir()):
        parser.error(f"`--into` should be an empty folder. Received: {given.into}")

    def run(*command: str | Path) -> None:
        subprocess.run(command, cwd=ROOT, check=True)

    with tempfile.TemporaryDirectory() as scratch:
        archive, copy, new = (Path(scratch, name) for name in ("archive.tar", "copy", "new"))
        run("git", "archive", "--output", archive, "HEAD")
        with tarfile.open(archive) as files:
            files.extractall(copy, filter="data")
        addressed(copy, address, given.documentation)
        run(sys.executable, "-m", "build", "--outdir", new, copy)
        built = sorted(new.iterdir())
        run(sys.executable, "-m", "twine", "check", "--strict", *built)
        for file in built:
            checked(file, urls(address, f"v{__version__}", given.documentation))
        into = given.into or ROOT / "dist"
        if given.into is None:
            shutil.rmtree(into, ignore_errors=True)
        into.mkdir(parents=True, exist_ok=True)
        for file in built:
            print(shutil.copy(file, into))


if __name__ == "__main__":
    main()
