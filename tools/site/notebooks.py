"""Below each guide's title, the guide as a file to take away. A Sphinx extension."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

FOLDER = "guides"
LINKS = (
    '<p class="downloads">Download: <a href="{name}.ipynb" download>notebook</a>, '
    '<a href="{name}.py" download>Python file</a></p>'
)


def _copy(app: Any, exception: Exception | None) -> None:
    """Both files beside each guide's page."""
    if exception is None and app.builder.format == "html":
        for path in (Path(app.srcdir) / FOLDER).iterdir():
            if path.suffix in (".py", ".ipynb"):
                shutil.copyfile(path, Path(app.outdir) / FOLDER / path.name)


def _link(app: Any, page: str, template: str, context: dict[str, Any], doctree: Any) -> None:
    folder, _, name = page.rpartition("/")
    if folder == FOLDER and (Path(app.srcdir) / f"{page}.py").is_file():
        context["body"] = context["body"].replace("</h1>", "</h1>" + LINKS.format(name=name), 1)


def setup(app: Any) -> dict[str, Any]:
    """Sphinx calls this."""
    app.connect("html-page-context", _link)
    app.connect("build-finished", _copy)
    return {"parallel_read_safe": True}
