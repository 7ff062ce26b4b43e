"""The targets of the project, and whether they are met. Pure."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from bench.series import CHROMA, HNSWLIB, POLYCHROME, QUANTITIES, Results, Series

RECALL_NOISE: Final = 0.005
"""Two graphs of the same rows differ by about this much over so few queries: only more counts as a lower recall."""


@dataclass(frozen=True)
class Target:
    """A line of the target table, or several: with `part`, all lines of that part.

    `factor`: so many times better than Chroma at the least. `most`: never above that. `hnswlib`: at most so many times
    what hnswlib in process needs.
    """

    title: str
    line: str = ""
    part: str = ""
    quantity: str = "per_s"
    clients: int = 0
    factor: float | None = None
    most: float | None = None
    hnswlib: float | None = None
    data: str = "real"


DURING: Final = "queries during bulk ingest"
TARGETS: Final = (
    Target(
        "acknowledged ingest, batches of 1,000, 4 clients", "ingest, acknowledged", quantity="rows_per_s", factor=25
    ),
    Target("ingest until indexed", "ingest until indexed", quantity="rows_per_s", factor=4),
    Target("single-row upsert, p50", "single-row upsert", quantity="p50_ms", clients=1, factor=6),
    Target("query k=10, 1 client, p50", "query k=10", quantity="p50_ms", clients=1, factor=3),
    Target("query k=10, 16 clients, throughput", "query k=10", clients=16, factor=6),
    Target("query k=10, 16 clients, CPU each", "query k=10", quantity="cpu_ms", clients=16, factor=6),
    Target("10 vectors in one query, throughput", "10 vectors in one query", clients=16, factor=6),
    Target("query k=100, throughput", "query k=100", clients=16, factor=6),
    Target("where", part="filters", clients=16, factor=40),
    Target("where_document", part="texts", clients=16, factor=20),
    Target("get by 10 ids, throughput", "get by 10 ids", clients=16, factor=5),
    Target("filtered get, throughput", "filtered get", clients=16, factor=20),
    Target("get at a deep offset, throughput", "get at a deep offset", clients=16, factor=30),
    Target("get of everything with embeddings, 1 client", "get of everything with embeddings", clients=1, factor=5),
    Target("count, throughput", "count", clients=16, factor=10),
    Target("count right after a write, p50", "count right after a write", quantity="p50_ms", clients=1, factor=10),
    Target("queries during bulk ingest, throughput", DURING, clients=4, factor=15),
    Target("queries during bulk ingest, p99", DURING, quantity="p99_ms", clients=4, factor=15),
    Target("memory added by a row", "memory added by a row", quantity="bytes_per_row", factor=1),
    Target("memory of the whole idle cluster", "memory, idle", quantity="mib", most=350),
    Target("kill -9 to the first right answer", "kill -9 to the first right answer", quantity="seconds", factor=0.5),
    Target(
        "1,000 collections of 100 rows, all",
        "1,000 collections of 100 rows: all",
        quantity="seconds",
        factor=3,
        data="collections",
    ),
    Target("query at 16 clients against hnswlib, CPU each", "query k=10", quantity="cpu_ms", clients=16, hnswlib=3),
)


@dataclass(frozen=True)
class Verdict:
    """A target and what was measured. `reached`: times better than Chroma, or times hnswlib's, or None. `met`: None
    when something is not measured.
    """

    title: str
    unit: str
    theirs: float | None
    ours: float | None
    reached: float | None
    wanted: str
    met: bool | None
    remark: str = ""


def verdicts(results: Results) -> list[Verdict]:
    return [verdict for target in TARGETS for verdict in _of(target, results)]


def _of(target: Target, results: Results) -> Iterator[Verdict]:
    lines = results.lines(target.data, target.part) if target.part else [target.line]
    if not lines:
        yield _missing(target)
    for line in lines:
        series = results.find(target.data, line, target.quantity, target.clients)
        if series is None or series.median(POLYCHROME) is None:
            yield _missing(target)
            continue
        title = f"{target.title} {series.line} ({series.detail})" if target.part else target.title
        yield _judged(target, title, series, results)


def _judged(target: Target, title: str, series: Series, results: Results) -> Verdict:
    unit, ours = QUANTITIES[target.quantity].unit, series.median(POLYCHROME)
    assert ours is not None
    if target.most is not None:
        return Verdict(
            title, unit, series.median(CHROMA), ours, None, f"under {target.most:g} {unit}", ours < target.most
        )
    if target.hnswlib is not None:
        return _beside_hnswlib(target, title, series, results)
    reached = series.times_better()
    met = None if reached is None or target.factor is None else reached >= target.factor
    remark = _recall_remark(series, results)
    return Verdict(title, unit, series.median(CHROMA), ours, reached, f"{target.factor:g}x", met and not remark, remark)


def _beside_hnswlib(target: Target, title: str, series: Series, results: Results) -> Verdict:
    """`theirs` is hnswlib's, which has one client."""
    assert target.hnswlib is not None
    alone = results.find(target.data, target.line, target.quantity, 1)
    theirs, ours = alone.median(HNSWLIB) if alone else None, series.median(POLYCHROME)
    reached = ours / theirs if ours is not None and theirs else None
    met = None if reached is None else reached <= target.hnswlib
    return Verdict(
        title, QUANTITIES[target.quantity].unit, theirs, ours, reached, f"at most {target.hnswlib:g}x hnswlib's", met
    )


def _recall_remark(series: Series, results: Results) -> str:
    """Not empty when Polychrome's recall on this line is lower than Chroma's."""
    recall = results.find(series.data, series.line, "recall")
    theirs, ours = (recall.median(CHROMA), recall.median(POLYCHROME)) if recall else (None, None)
    if theirs is None or ours is None or ours >= theirs - RECALL_NOISE:
        return ""
    return f"recall {ours:.3f} is below {theirs:.3f}"


def _missing(target: Target) -> Verdict:
    wanted = f"{target.factor:g}x" if target.factor is not None else ""
    return Verdict(target.title, QUANTITIES[target.quantity].unit, None, None, None, wanted, None, "not measured")
