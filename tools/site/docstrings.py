"""Docstrings, which are written in Markdown with Google's sections, as Sphinx's own markup.

A Sphinx extension. Names in backticks become links where they are public; fences become code;
a line such as "Args:" with an indented block below it becomes a field of that name.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator
from typing import Any

from tools.site.names import public_names

SECTION = re.compile(r"^([A-Z][^:]*):$")
# Sections that describe one name after another.
OF_NAMES = ("Args", "Attributes", "Call arguments", "Raises")
ENTRY = re.compile(r"^([\w*`][\w*`,./ ]*?): (.*)")
CODE = re.compile(r"(`[^`]+`)", re.DOTALL)
# What would be markup in Sphinx's language and is none in ours: references, substitutions, and
# emphasis that only opens.
MARKUP = re.compile(r"[*|\\]|(?<=\w)_(?!\w)")
EMPHASIS = re.compile(r"((?<![\w*])\*\w[^*]*\*(?![\w*]))")


def to_rst(text: str, own: frozenset[str] = frozenset()) -> list[str]:
    """A whole docstring in reStructuredText.

    Args:
        text: the docstring, as `inspect.getdoc` cleans it.
        own: names that are not made links of: the arguments of what the docstring is of.
    """
    lines: list[str] = []
    for head, body in _sections(text.splitlines()):
        if head is None:
            lines += _blocks(body, own)
            continue
        entries = _entries(body) if head in OF_NAMES else [(None, body)]
        lines += ["", f":{_inline(head, own)}:", ""]
        for name, described in entries:
            inner = _blocks(described, own)
            if name is not None:
                inner = [f"**{_plain(name)}** – {inner[0]}", *inner[1:]]
                inner = [f"- {inner[0]}", *(f"  {line}" if line else "" for line in inner[1:])]
            lines += [f"   {line}" if line else "" for line in inner]
        lines.append("")
    return lines


def _sections(lines: list[str]) -> Iterator[tuple[str | None, list[str]]]:
    """The parts of a docstring: each with its heading, or `None` for prose."""
    head: str | None = None
    body: list[str] = []
    for i, line in enumerate(lines):
        below = next((x for x in lines[i + 1 : i + 2] if x), "")
        found = SECTION.match(line) if below.startswith("    ") else None
        if found:
            yield head, body
            head, body = found[1], []
        elif head is not None and line and not line.startswith(" "):
            yield head, body
            head, body = None, [line]
        else:
            body.append(line if head is None else line.removeprefix("    "))
    yield head, body


def _entries(body: list[str]) -> list[tuple[str | None, list[str]]]:
    """The arguments, errors or attributes of a section; one without a name where it has none."""
    entries: list[tuple[str | None, list[str]]] = []
    for line in _with_whole_names(body):
        found = ENTRY.match(line)
        if found and _is_name(found[1]):
            entries.append((found[1], [found[2]]))
        elif entries:
            entries[-1][1].append(line.removeprefix("    ") if entries[-1][0] else line)
        else:
            entries.append((None, [line]))
    return entries


def _with_whole_names(body: list[str]) -> Iterator[str]:
    """The lines, those joined over which a list of names goes on."""
    names = ""
    for line in body:
        if names or re.fullmatch(r"\w+(, \w+)*,", line):
            names = f"{names} {line.strip()}".strip()
            if names.endswith(",") and ": " not in names:
                continue
            line, names = names, ""
        yield line


def _is_name(text: str) -> bool:
    """Whether it is what is described, not the beginning of a sentence."""
    return all(re.fullmatch(r"`?\*{0,2}[\w.]+`?", part.strip()) for part in text.split(","))


def _blocks(lines: list[str], own: frozenset[str]) -> list[str]:
    """Prose, lists and fenced code."""
    made: list[str] = []
    prose: list[str] = []
    fence: list[str] | None = None

    def end_prose() -> None:
        if prose:
            made.extend(_inline("\n".join(prose), own).split("\n"))
            prose.clear()

    for line in lines:
        if fence is None and line.lstrip().startswith("```"):
            end_prose()
            fence = ["", f".. code-block:: {line.strip().strip('`') or 'text'}", ""]
        elif fence is not None and line.strip() == "```":
            made += [*fence, ""]
            fence = None
        elif fence is not None:
            fence.append(f"   {line}" if line else "")
        else:
            is_item = re.match(r"[-*] ", line)
            if is_item and prose and prose[-1] and not _in_list(prose):
                prose.append("")
            prose.append(line)
    end_prose()
    return made


def _in_list(prose: list[str]) -> bool:
    """Whether the last line is of a list."""
    return bool(re.match(r"[-*] |  ", prose[-1]))


def _inline(text: str, own: frozenset[str]) -> str:
    """Code and links in prose."""
    parts = CODE.split(text)
    return "".join(_code(part, own) if CODE.fullmatch(part) else _plain(part) for part in parts)


def _plain(text: str) -> str:
    parts = EMPHASIS.split(text)
    # Every second one is emphasis, which both languages write alike.
    parts[::2] = [MARKUP.sub(lambda found: "\\" + found[0], part) for part in parts[::2]]
    return "".join(parts)


def _code(part: str, own: frozenset[str]) -> str:
    """A link where the name is public, else code."""
    code = " ".join(part.strip("`").split())
    name = re.sub(r"\(.*\)$", "", code)
    target = None if name in own else _targets().get(name)
    if target is not None:
        return f"\\ :py:obj:`{code} <{target}>`\\ "
    # A literal may not begin or end with a space.
    shown = code if part.strip("`") == part.strip("`").strip() else part.strip("`").strip("\n")
    if shown != shown.strip():
        return f"\\ :code:`{_escaped(shown)}`\\ "
    return f"\\ ``{shown}``\\ "


def _escaped(text: str) -> str:
    """With signs for its outer spaces, which markup would not take."""
    inner = text.strip(" ").replace("\\", "\\\\")
    front, back = len(text) - len(text.lstrip(" ")), len(text) - len(text.rstrip(" "))
    return "\u00a0" * front + inner + "\u00a0" * back


_TARGETS: dict[str, str] = {}


def _targets() -> dict[str, str]:
    """Where a name in backticks leads, by all that a docstring may call it without doubt."""
    if not _TARGETS:
        places: dict[str, set[str]] = {}
        for full in public_names():
            parts = full.split(".")
            for i in range(len(parts)):
                # A bare method's name may be any class's, or Keras's.
                if i == len(parts) - 1 and parts[-2][:1].isupper():
                    continue
                places.setdefault(".".join(parts[i:]), set()).add(full)
        _TARGETS.update({k: next(iter(v)) for k, v in places.items() if len(v) == 1})
    return _TARGETS


def _own_names(item: Any) -> frozenset[str]:
    try:
        return frozenset(inspect.signature(item).parameters)
    except (TypeError, ValueError):
        return frozenset()


def _process(app: Any, what: str, name: str, item: Any, options: Any, lines: list[str]) -> None:
    own = _own_names(item) | {name, name.rpartition(".")[2]}
    lines[:] = to_rst("\n".join(lines).rstrip(), own)


def _sign(app: Any, what: str, name: str, item: Any, *_: Any) -> tuple[str, str] | None:
    """Of Keras's classes, whose `__new__` takes anything, the constructor's arguments."""
    if what != "class" or "__init__" not in vars(item):
        return None
    _self, *arguments = inspect.signature(item.__init__).parameters.values()
    bare = [p.replace(annotation=inspect.Parameter.empty) for p in arguments]
    return str(inspect.Signature(bare)), ""


def setup(app: Any) -> dict[str, Any]:
    """Sphinx calls this."""
    app.connect("autodoc-process-docstring", _process)
    app.connect("autodoc-process-signature", _sign)
    return {"parallel_read_safe": True}
