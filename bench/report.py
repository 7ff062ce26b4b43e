"""From samples to the table: medians, and how many times better Polychrome is."""

import os
import platform
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

COLUMNS = ("", "unit", "Chroma", "Polychrome", "times better", "target")


@dataclass(frozen=True)
class Figure:
    """One line. The values are those of the runs; `target` is the ratio to reach. `compared`: False for what is to be
    read side by side, not as a ratio (recall).
    """

    name: str
    unit: str
    chroma: Sequence[float]
    polychrome: Sequence[float]
    higher_is_better: bool
    target: float | None = None
    compared: bool = True

    @property
    def times_better(self) -> float:
        ours, theirs = median(self.polychrome), median(self.chroma)
        above, below = (ours, theirs) if self.higher_is_better else (theirs, ours)
        return above / below if below else float("inf")

    def cells(self) -> tuple[str, ...]:
        ratio = f"{self.times_better:.2f}" if self.compared else ""
        target = (
            "" if self.target is None else f"{self.target:g} {'met' if self.times_better >= self.target else 'MISSED'}"
        )
        return self.name, self.unit, _number(median(self.chroma)), _number(median(self.polychrome)), ratio, target


def table(figures: Iterable[Figure]) -> str:
    """Markdown, aligned so that it reads well in a terminal too."""
    rows = [COLUMNS, *(figure.cells() for figure in figures)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(COLUMNS))]
    rows.insert(1, tuple("-" * width for width in widths))
    return "\n".join("| " + " | ".join(_padded(row, widths)) + " |" for row in rows)


def machine() -> str:
    """Where the figures were measured."""
    models = [line.split(":", 1)[1].strip() for line in _cpuinfo() if line.startswith("model name")]
    return f"{os.cpu_count()} x {models[0] if models else platform.machine()}, Python {platform.python_version()}"


def _cpuinfo() -> list[str]:
    return Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()


def _padded(row: Sequence[str], widths: Sequence[int]) -> Iterable[str]:
    for column, (cell, width) in enumerate(zip(row, widths, strict=True)):
        yield cell.ljust(width) if column < 2 or column == len(COLUMNS) - 1 else cell.rjust(width)


def _number(value: float) -> str:
    if value >= 1000:
        return f"{value:,.0f}"
    return f"{value:.1f}" if value >= 100 else f"{value:.3g}"
