"""Runs the guides and writes them down with what came out: `make guides`.

A guide is docs/guides/NAME.py, cells of Markdown and code in the percent format that editors know.
What it printed and drew is kept in docs/guides/NAME.ipynb, which is a page of the site, shows on
GitHub, and is the notebook to take away. A test holds that the two have the same cells.

    python -m tools.guides                 # all that changed since they were run
    python -m tools.guides first_tasks     # these
"""

from __future__ import annotations

import json
import os
import re
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

GUIDES = Path(__file__).parents[1] / "docs" / "guides"
MARK = re.compile(r"^# %%(?: \[(markdown)\])?$", re.MULTILINE)
# Of what a cell gives, the forms that a page can show.
SHOWN = ("image/png", "text/plain")

Cell = tuple[str, str]


def sources() -> list[Path]:
    """The guides as they are written."""
    return sorted(GUIDES.glob("*.py"))


def cells(text: str) -> list[Cell]:
    """The cells of a guide: "markdown" or "code", and what stands in them."""
    before, *parts = MARK.split(text)
    if before.strip():
        raise ValueError(f"a guide should begin with a cell. Received: {before!r}")
    found = []
    for kind, body in zip(parts[::2], parts[1::2], strict=True):
        body = body.strip("\n")
        if kind:
            body = "\n".join(line.removeprefix("#").removeprefix(" ") for line in body.split("\n"))
        found.append((kind or "code", body))
    return found


def cells_of_notebook(notebook: dict[str, Any]) -> list[Cell]:
    """The same of what was written down."""
    return [(cell["cell_type"], "".join(cell["source"])) for cell in notebook["cells"]]


def as_notebook(text: str) -> dict[str, Any]:
    """A guide as a notebook, nothing of it run yet."""
    made: list[dict[str, Any]] = []
    for i, (kind, body) in enumerate(cells(text)):
        cell = {"cell_type": kind, "id": f"cell-{i}", "metadata": {}, "source": body}
        made.append(cell | ({"execution_count": None, "outputs": []} if kind == "code" else {}))
    kernel = {"display_name": "Python 3", "language": "python", "name": "python3"}
    metadata = {"kernelspec": kernel, "language_info": {"name": "python"}}
    return {"cells": made, "metadata": metadata, "nbformat": 4, "nbformat_minor": 5}


def is_fresh(source: Path) -> bool:
    """Whether the notebook beside a guide is what came out of its present cells."""
    notebook = source.with_suffix(".ipynb")
    if not notebook.is_file():
        return False
    return cells_of_notebook(json.loads(notebook.read_text())) == cells(source.read_text())


def has_run(source: Path) -> bool:
    """Whether that is so of the code, whatever has become of the text around it."""
    notebook = source.with_suffix(".ipynb")
    if not notebook.is_file():
        return False
    shown = cells_of_notebook(json.loads(notebook.read_text()))
    return code_of(shown) == code_of(cells(source.read_text()))


def code_of(found: list[Cell]) -> list[str]:
    """What is run of the cells."""
    return [body for kind, body in found if kind == "code"]


def reword(source: Path) -> None:
    """Gives a guide's notebook its present text, and leaves what came out of the code."""
    target = source.with_suffix(".ipynb")
    made = as_notebook(source.read_text())
    old = iter(c for c in json.loads(target.read_text())["cells"] if c["cell_type"] == "code")
    for cell in made["cells"]:
        if cell["cell_type"] == "code":
            cell |= {key: value for key, value in next(old).items() if key != "id"}
    _write(target, made)


def run(source: Path) -> None:
    """Runs a guide in an empty folder, and writes its notebook."""
    import nbformat
    from nbclient import NotebookClient

    notebook = nbformat.from_dict(as_notebook(source.read_text()))
    with tempfile.TemporaryDirectory() as folder:
        resources = {"metadata": {"path": folder}}
        NotebookClient(notebook, timeout=3600, resources=resources).execute()
    for i, cell in enumerate(c for c in notebook["cells"] if c["cell_type"] == "code"):
        cell["metadata"], cell["execution_count"] = {}, i + 1
        cell["outputs"] = [out for given in cell["outputs"] if (out := _kept(given)) is not None]
    notebook["metadata"] = as_notebook("")["metadata"]
    _write(source.with_suffix(".ipynb"), notebook)


def _write(target: Path, notebook: dict[str, Any]) -> None:
    text = json.dumps(_in_lines(notebook), indent=1, ensure_ascii=False, sort_keys=True)
    target.write_text(text + "\n")


def _kept(output: dict[str, Any]) -> dict[str, Any] | None:
    """What a page shows of an output: no notices, and a picture without its name."""
    if output["output_type"] == "stream":
        return output if output["name"] == "stdout" else None
    data = {form: output["data"][form] for form in SHOWN if form in output["data"]}
    if "image/png" in data:
        data = {"image/png": data["image/png"].strip()}
    return {"output_type": "display_data", "data": data, "metadata": {}}


def _in_lines(notebook: dict[str, Any]) -> dict[str, Any]:
    """With text as lists of lines, which differences are read by."""
    for cell in notebook["cells"]:
        cell["source"] = "".join(cell["source"]).splitlines(keepends=True)
        for output in cell.get("outputs", ()):
            if "text" in output:
                output["text"] = "".join(output["text"]).splitlines(keepends=True)
    return notebook


def main(names: list[str]) -> None:
    """Runs the guides of these names, or all whose code has changed; new text costs no run."""
    os.environ.setdefault("KERAS_BACKEND", "torch")
    for source in sources():
        if source.stem not in names and has_run(source):
            if not is_fresh(source):
                reword(source)
        elif source.stem in names or not names:
            start = time.monotonic()
            run(source)
            print(f"{source.stem}: {time.monotonic() - start:.0f} s", flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
