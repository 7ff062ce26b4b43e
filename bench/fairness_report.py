"""The section of the page on fairness: a victim's latency beside floods of another tenant. Pure but for the plot."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from matplotlib.figure import Figure

from bench.series import POLYCHROME, PartResult, Results

PART: Final = "fairness"
ALONE: Final = "alone"
FILE: Final = "benchmarks-fairness.svg"
OPERATIONS: Final = ("query", "upsert")
RATIO_MAX: Final = 2.0
ADDED_MS_MAX: Final = 5.0
"""The target: p99 beside a flood is at most RATIO_MAX times that alone and so many ms more, and nothing is refused."""


@dataclass(frozen=True)
class Row:
    """An operation beside a flood. `ratio`: p99 beside it by that alone. `errors`: of all operations beside it."""

    flood: str
    operation: str
    p50_ms: float
    p99_ms: float
    ratio: float
    errors: int
    met: bool


def rows(results: Results) -> Iterator[Row]:
    """The rows of the table, those of the victim alone first; none before the part was measured."""
    part = results.parts.get(PART)
    if part is None or not part.series:
        return
    floods = list(dict.fromkeys(series.line.partition(": ")[0] for series in part.series))
    for operation in OPERATIONS:
        alone_ms = _median(part, f"{ALONE}: {operation}", "p99_ms")
        for flood in floods:
            line = f"{flood}: {operation}"
            p99_ms, errors = _median(part, line, "p99_ms"), int(_median(part, line, "errors"))
            met = not errors and p99_ms <= RATIO_MAX * alone_ms + ADDED_MS_MAX
            yield Row(flood, operation, _median(part, line, "p50_ms"), p99_ms, p99_ms / alone_ms, errors, met)


def note() -> str:
    """The text above the table: how it came about, and the target."""
    return (
        "One client queries and upserts real rows in turn, alone, and while another tenant floods the servers. Target:"
        f" p99 at most {RATIO_MAX:g} times that alone plus {ADDED_MS_MAX:g} ms, and no 4xx or 5xx.\n\n"
    )


def draw(results: Results, path: Path) -> None:
    """Bars of p99 by flood, for each operation, with a line at the target."""
    figure = Figure(figsize=(12, 4.6), layout="constrained")
    for place, operation in enumerate(OPERATIONS):
        axes = figure.add_subplot(1, len(OPERATIONS), place + 1)
        found = [row for row in rows(results) if row.operation == operation]
        axes.barh([row.flood for row in found], [row.p99_ms for row in found], color="#d95f02", label="p99")
        axes.barh([row.flood for row in found], [row.p50_ms for row in found], color="#1b9e77", label="p50")
        if found:
            axes.axvline(RATIO_MAX * found[0].p99_ms + ADDED_MS_MAX, color="#7570b3", label="target of p99")
            axes.set_xscale("log")
            axes.legend()
        axes.invert_yaxis()
        axes.set(xlabel="ms", title=f"{operation} beside a flood")
    figure.savefig(path, format="svg", metadata={"Date": None})


def _median(part: PartResult, line: str, quantity: str) -> float:
    for series in part.series:
        if (series.line, series.quantity) == (line, quantity):
            return series.median(POLYCHROME) or 0.0
    raise ValueError(f"no {quantity} of {line!r}")
