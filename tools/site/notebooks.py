"""The guides as files to take away: as they are, and as notebooks. A Sphinx extension."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

FOLDER = "guides"
LINKS = (
    '<p class="downloads">Download this guide: '
    '<a href="{name}.ipynb" download>notebook</a>, '
    '<a href="{name}.py" download>Python file</a>.</p>'
)


def guides(app: Any) -> list[Path]:
    """The guides' sources."""
    return sorted((Path(app.srcdir) / FOLDER).glob("*.py"))


def _write(app: Any, exception: Exception | None) -> None:
    """Both files beside each guide's page."""
    import jupytext

    if exception is None and app.builder.format == "html":
        for guide in guides(app):
            folder = Path(app.outdir) / FOLDER
            shutil.copyfile(guide, folder / guide.name)
            notebook = jupytext.read(guide, fmt="py:percent")
            jupytext.write(notebook, folder / f"{guide.stem}.ipynb")


def _link(app: Any, page: str, template: str, context: dict[str, Any], doctree: Any) -> None:
    folder, _, name = page.rpartition("/")
    if folder == FOLDER and (Path(app.srcdir) / f"{page}.py").is_file():
        # Below the title.
        context["body"] = context["body"].replace("</h1>", "</h1>" + LINKS.format(name=name), 1)


def setup(app: Any) -> dict[str, Any]:
    """Sphinx calls this."""
    app.connect("html-page-context", _link)
    app.connect("build-finished", _write)
    return {"parallel_read_safe": True}
