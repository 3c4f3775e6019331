"""Markdown of the pages that are written from measurements."""

from __future__ import annotations

from collections.abc import Iterable, Sequence


def table(columns: Sequence[str], lines: Iterable[Sequence[str]], rule: str = " --- ") -> str:
    """A table, with a newline after each of its lines.

    Args:
        columns: their headings.
        lines: cells, as many in each line as there are columns.
        rule: what stands under each heading.
    """
    head, *body = (f"| {' | '.join(cells)} |\n" for cells in (columns, *lines))
    return "".join([head, "|", f"{rule}|" * len(columns), "\n", *body])
