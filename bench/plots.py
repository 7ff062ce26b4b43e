"""The plots of the page, as SVG that is the same for the same results."""

from pathlib import Path
from typing import Any, Final

import matplotlib as mpl
from matplotlib.figure import Figure

from bench import fairness_report
from bench.series import CHROMA, HNSWLIB, POLYCHROME, Results

COLOURS: Final = {CHROMA: "#d95f02", POLYCHROME: "#1b9e77", HNSWLIB: "#7570b3"}
RECALL_FILE: Final = "benchmarks-recall.svg"
CONCURRENCY_FILE: Final = "benchmarks-concurrency.svg"

Point = tuple[float, float]


def draw(results: Results, directory: Path) -> None:
    mpl.rcParams["svg.hashsalt"] = "polychrome"
    mpl.rcParams["svg.fonttype"] = "none"
    _draw_recall(results, directory / RECALL_FILE)
    _draw_concurrency(results, directory / CONCURRENCY_FILE)
    if fairness_report.PART in results.parts:
        fairness_report.draw(results, directory / fairness_report.FILE)


def recall_points(results: Results) -> dict[str, list[Point]]:
    """(recall, p50 in ms) by participant, one for each beam."""
    found: dict[str, list[Point]] = {}
    for line in results.lines("real", "beams"):
        recall, p50 = results.find("real", line, "recall"), results.find("real", line, "p50_ms", 1)
        for who in COLOURS:
            across, up = (series.median(who) if series else None for series in (recall, p50))
            if across is not None and up is not None:
                found.setdefault(who, []).append((across, up))
    return found


def concurrency_points(results: Results, quantity: str) -> dict[str, list[Point]]:
    """(clients, quantity) by participant."""
    found: dict[str, list[Point]] = {}
    for series in results.parts["concurrency"].series if "concurrency" in results.parts else ():
        for who in COLOURS:
            if series.quantity == quantity and (value := series.median(who)) is not None:
                found.setdefault(who, []).append((series.clients, value))
    return found


def _draw_recall(results: Results, path: Path) -> None:
    figure, axes = _figure(1)
    _lines(axes[0], recall_points(results))
    axes[0].set(xlabel="recall@10", ylabel="p50 of a query, 1 client, ms", yscale="log", title="ef_search swept")
    _save(figure, path)


def _draw_concurrency(results: Results, path: Path) -> None:
    figure, axes = _figure(2)
    for one, quantity, label in zip(axes, ("per_s", "p99_ms"), ("queries a second", "p99, ms"), strict=True):
        _lines(one, concurrency_points(results, quantity))
        one.set(xlabel="clients", ylabel=label, xscale="log", yscale="log")
        ticks = sorted({across for points in concurrency_points(results, quantity).values() for across, _ in points})
        one.set_xticks(ticks, labels=[f"{tick:g}" for tick in ticks], minor=False)
        one.minorticks_off()
    _save(figure, path)


def _figure(count: int) -> tuple[Figure, list[Any]]:
    figure = Figure(figsize=(5.5 * count + 1, 4.2), layout="constrained")
    return figure, [figure.add_subplot(1, count, number + 1) for number in range(count)]


def _lines(axes: Any, points: dict[str, list[Point]]) -> None:
    for who, found in points.items():
        label = f"{who} in process, 1 thread" if who == HNSWLIB else who
        axes.plot(*zip(*found, strict=True), marker="o", color=COLOURS[who], label=label)
    axes.grid(visible=True, which="both", alpha=0.25)
    if points:
        axes.legend()


def _save(figure: Figure, path: Path) -> None:
    figure.savefig(path, format="svg", metadata={"Date": None})
