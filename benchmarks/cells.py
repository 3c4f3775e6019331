"""What the page's tables are made of."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from string import ascii_uppercase
from typing import Any, NamedTuple

from benchmarks.timing import middle, ratios, spread
from tools.backends import NAMES


def least_seconds(seconds: dict[str, list[float]]) -> list[float] | None:
    """The bare backbone on the user's tokens and each prompt, where prompts can be shared."""
    if "prompts" not in seconds:
        return None
    return [a + b for a, b in zip(seconds["floor"], seconds["prompts"], strict=True)]


class Run(NamedTuple):
    """Where something was measured."""

    backend: str
    machine: str = ""
    """A letter, where there are several."""

    @property
    def label(self) -> str:
        """As tables name it."""
        return ", ".join([NAMES[self.backend], *([self.machine] if self.machine else [])])

    @property
    def peft(self) -> Run:
        """Where PEFT's memory is measured: it is the same PyTorch beside every backend."""
        return self._replace(backend="torch")


Parts = dict[str, dict[Run, Any]]
"""What each part found, in one order, whatever was measured first."""


def lettered(reports: Sequence[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Machines' reports by a letter; one alone needs none."""
    letters = ascii_uppercase if len(reports) > 1 else ("",)
    return dict(zip(letters, reports, strict=False))


def chart_of(part: str, letter: str) -> str:
    """The file of a machine's chart."""
    return f"{part}_{letter.lower()}.svg" if letter else f"{part}.svg"


def together(reports: Mapping[str, Any]) -> Parts:
    """The parts of all machines, by the letters that they have."""
    names = dict.fromkeys(name for report in reports.values() for name in report["results"])
    return {
        name: {
            Run(backend, letter): report["results"][name][backend]
            for backend in NAMES
            for letter, report in reports.items()
            if backend in report["results"].get(name, {})
        }
        for name in names
    }


def pictures(parts: Parts, part: str, title: str) -> str:
    """The charts of the machines that measured a part."""
    found = sorted({run.machine for run in parts[part]})
    titles = {m: ", ".join([title, *([m] if m else [])]) for m in found}
    return "".join(f"![{titles[m]}]({chart_of(part, m)})\n\n" for m in found)


def peak(memory: dict[Run, Any], run: Run, case: str, side: str) -> int | None:
    """Bytes of one case's side, where they were measured."""
    rows = memory.get(run, {"rows": []})["rows"]
    found = [row["bytes"][side] for row in rows if row["case"] == case and side in row["bytes"]]
    # float32 of the variants is the case itself.
    return found[0] if found else None


def in_rows(results: dict[Run, Any]) -> Iterator[tuple[Run, Any]]:
    """Rows case by case, the backends and machines of each together."""
    most = max(len(found["rows"]) for found in results.values())
    for i in range(most):
        for run, found in results.items():
            if i < len(found["rows"]):
                yield run, found["rows"][i]


def in_time(seconds: Sequence[float]) -> str:
    value = middle(seconds)
    if value < 0.1:
        return f"{1000 * value:.2g} ms" if value < 0.01 else f"{1000 * value:.0f} ms"
    return f"{value:.2f} s"


def ratio(above: Sequence[float], below: Sequence[float]) -> str:
    value, low, high = spread(ratios(above, below))
    return f"{value:.2f} ({low:.2f} to {high:.2f})"


def quotient(above: float, below: float) -> str:
    return f"{above / below:.2f}" if below > 0 else "too short to tell"


def mebibytes(count: int | None) -> str:
    return "" if count is None else f"{count / 2**20:,.0f} MiB"
