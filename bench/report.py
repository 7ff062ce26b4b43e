"""From results to the text of the page. Pure."""

from collections.abc import Iterable, Sequence
from typing import Final

from bench import fairness_report
from bench.series import CHROMA, HNSWLIB, POLYCHROME, QUANTITIES, Results, Series
from bench.targets import Verdict, verdicts

READ_PARTS: Final = ("queries", "filters", "texts", "gets", "writes")
GROWTH: Final = ("small", "real", "large")
NOTHING: Final = "-"
WHO: Final = (CHROMA, POLYCHROME, HNSWLIB)
_READ_COLUMNS: Final = (("p50_ms", 1), ("per_s", 16), ("cpu_ms", 16), ("recall", 0))
_GROWTH_ROWS: Final = (
    ("ingest, acknowledged", "rows_per_s", 0),
    ("ingest until indexed", "rows_per_s", 0),
    ("query k=10", "p50_ms", 1),
    ("query k=10", "per_s", 16),
    ("query k=10", "cpu_ms", 16),
    ("query k=10", "recall", 0),
    ("section or maintainer =", "per_s", 16),
    ("range of installed_size, 50 %", "per_s", 16),
    ("$contains, 1 %", "per_s", 16),
    ("get by 10 ids", "per_s", 16),
    ("count", "per_s", 16),
    ("single-row upsert", "p50_ms", 1),
)


def target_table(results: Results) -> str:
    rows = [_verdict_row(verdict) for verdict in verdicts(results)]
    return table(("", "unit", "Chroma", "Polychrome", "times better", "target", "met"), rows)


def page(results: Results, machine: str, method: str, simulation: str) -> str:
    """`method`: how it is measured. `simulation`: a section's text, or nothing."""
    sections = [
        _introduction(results, machine),
        "## Targets\n\n" + _targets_note(results) + target_table(results),
        "## Operations at full size\n\n" + _operations_note() + reads_table(results, "real", READ_PARTS),
        "## Latency against recall\n\n![Latency against recall](benchmarks-recall.svg)\n\n" + beams_table(results),
        "## Throughput against concurrency\n\n![Throughput against concurrency](benchmarks-concurrency.svg)\n\n"
        + concurrency_table(results),
        "## Ingest, a crash, small collections\n\n" + events_table(results),
        "## Memory\n\n" + memory_table(results),
        "## Growth\n\n" + growth_table(results) + "\n\n" + growth_cost(results),
        "## Wide vectors\n\n" + _wide_note(results) + reads_table(results, "wide", ("wide",)),
    ]
    if fairness_report.PART in results.parts:
        picture = f"\n\n![Latency beside floods]({fairness_report.FILE})"
        sections.append("## Fairness\n\n" + fairness_report.note() + fairness_table(results) + picture)
    if simulation:
        sections.append("## Scale-out, simulated\n\n" + simulation.strip())
    sections += ["## How it is measured\n\n" + method.strip(), "## Runs\n\n" + runs_table(results)]
    return "\n\n".join(sections) + "\n"


def reads_table(results: Results, data: str, parts: Sequence[str]) -> str:
    rows = []
    for part in parts:
        for line in results.lines(data, part):
            found = [results.find(data, line, quantity, clients) for quantity, clients in _READ_COLUMNS]
            if not any(found[:3]):
                continue
            detail = next((series.detail for series in found if series), "")
            if found[1] is None:  # some are measured with one client alone
                found[1:3] = [results.find(data, line, quantity, 1) for quantity in ("per_s", "cpu_ms")]
                detail = f"{detail}, 1 client" if detail else "1 client"
            rows.append((f"{line} ({detail})" if detail else line, *map(pair, found)))
    header = ("Chroma → Polychrome", "p50, 1 client, ms", "throughput, 16 clients, 1/s", "CPU each, ms", "recall")
    return table(header, rows)


def beams_table(results: Results) -> str:
    rows = []
    for line in results.lines("real", "beams"):
        recall, p50 = results.find("real", line, "recall"), results.find("real", line, "p50_ms", 1)
        cells = [number(series.median(who)) if series else NOTHING for who in WHO for series in (recall, p50)]
        rows.append((line.removeprefix("ef_search "), *cells))
    return table(("ef_search", *(f"{who}: {what}" for who in WHO for what in ("recall", "p50, ms"))), rows)


def concurrency_table(results: Results) -> str:
    part = results.parts.get("concurrency")
    clients = sorted({series.clients for series in part.series if series.clients}) if part else []
    quantities = ("per_s", "p50_ms", "p99_ms", "cpu_ms")
    rows = [(str(n), *(pair(results.find("real", "concurrency", one, n)) for one in quantities)) for n in clients]
    return table(("clients", "throughput, 1/s", "p50, ms", "p99, ms", "CPU each, ms"), rows)


def events_table(results: Results) -> str:
    """Every series of these parts in a row of its own."""
    parts = [results.parts[name] for name in ("ingest", "busy", "restart", "collections") if name in results.parts]
    return comparison([series for part in parts for series in part.series])


def memory_table(results: Results) -> str:
    part = results.parts.get("memory")
    series = part.series if part else []
    totals = comparison([one for one in series if ": " not in one.line])
    rows = []
    for process in [one.line.removeprefix("idle: ") for one in series if one.line.startswith("idle: ")]:
        idle, filled = (results.find("real", f"{when}: {process}", "mib") for when in ("idle", "filled"))
        rows.append((process, *(number(one.median(POLYCHROME)) if one else NOTHING for one in (idle, filled))))
    return totals + "\n\n" + table(("Polychrome's processes, MiB", "idle", "filled"), rows)


def comparison(series: Iterable[Series]) -> str:
    rows = []
    for one in series:
        quantity = QUANTITIES[one.quantity]
        clients = f", {one.clients} clients" if one.clients else ""
        ratio = one.times_better() if quantity.higher is not None else None
        cells = (number(one.median(CHROMA)), number(one.median(POLYCHROME)), _times(ratio))
        rows.append((f"{one.line}: {quantity.title}{clients}", quantity.unit, *cells))
    return table(("", "unit", "Chroma", "Polychrome", "times better"), rows)


def growth_table(results: Results) -> str:
    rows = []
    for line, quantity, clients in _GROWTH_ROWS:
        found = [results.find(data, line, quantity, clients) for data in GROWTH]
        unit = QUANTITIES[quantity].unit
        title = f"{line}: {QUANTITIES[quantity].title}{f', {clients} clients' if clients else ''}"
        rows.append((f"{title}, {unit}" if unit else title, *map(pair, found)))
    alone = [results.find(data, "query k=10", "cpu_ms", 1) for data in GROWTH]
    rows.append(("hnswlib in process: CPU each, ms", *(number(s.median(HNSWLIB) if s else None) for s in alone)))
    rows.append(("Polychrome's CPU of a query as a multiple of hnswlib's", *(_times(r) for r in cost_ratios(results))))
    return table(("Chroma → Polychrome", *(_size(results, data) for data in GROWTH)), rows)


def cost_ratios(results: Results) -> list[float | None]:
    """CPU of a query at 16 clients over that of hnswlib in process, at each size."""
    found: list[float | None] = []
    for data in GROWTH:
        ours, alone = (results.find(data, "query k=10", "cpu_ms", clients) for clients in (16, 1))
        above = ours.median(POLYCHROME) if ours else None
        below = alone.median(HNSWLIB) if alone else None
        found.append(above / below if above is not None and below else None)
    return found


def growth_cost(results: Results) -> str:
    first, *later = cost_ratios(results)
    if first is None or None in later:
        return "Cost of a query against hnswlib's own: not measured at every size."
    grows = any(ratio is not None and ratio > first for ratio in later)
    return (
        f"From the smallest size on, the cost of a query grows {'FASTER' if grows else 'no faster'} than hnswlib's own."
    )


def fairness_table(results: Results) -> str:
    rows = []
    for row in fairness_report.rows(results):
        figures = (number(row.p50_ms), number(row.p99_ms), f"{row.ratio:.1f}x", str(row.errors))
        rows.append((row.operation, row.flood, *figures, "yes" if row.met else "NO"))
    return table(("", "beside", "p50, ms", "p99, ms", "of that alone", "4xx and 5xx", "met"), rows)


def runs_table(results: Results) -> str:
    rows = [
        (name, part.effort, part.when, part.commit, f"{part.took_s:.0f} s", _failure(part.error))
        for name, part in results.parts.items()
    ]
    return table(("part", "scale", "when (UTC)", "commit", "took", ""), rows)


def table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Markdown, aligned so that it reads well in a terminal too."""
    cells = [header, *([cell.replace("|", "\\|") for cell in row] for row in rows)]
    widths = [max(len(row[column]) for row in cells) for column in range(len(header))]
    lines = [
        "| " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) + " |" for row in cells
    ]
    lines.insert(1, "| " + " | ".join("-" * width for width in widths) + " |")
    return "\n".join(lines)


def pair(series: Series | None) -> str:
    """Chroma's median, ours, and how many times better."""
    if series is None:
        return NOTHING
    theirs, ours = number(series.median(CHROMA)), number(series.median(POLYCHROME))
    ratio = series.times_better()
    if ratio is None or series.quantity == "recall":
        return f"{theirs} → {ours}"
    return f"{theirs} → {ours} ({_times(ratio)})"


def number(value: float | None) -> str:
    if value is None:
        return NOTHING
    if value >= 1000:
        return f"{value:,.0f}"
    return f"{value:.1f}" if value >= 100 else f"{value:.3g}"


def _verdict_row(verdict: Verdict) -> tuple[str, ...]:
    met = {True: "yes", False: "NO", None: NOTHING}[verdict.met]
    numbers = (number(verdict.theirs), number(verdict.ours), _times(verdict.reached))
    return verdict.title, verdict.unit, *numbers, verdict.wanted, f"{met}: {verdict.remark}" if verdict.remark else met


def _times(ratio: float | None) -> str:
    return NOTHING if ratio is None else f"{ratio:.1f}x" if ratio < 100 else f"{ratio:.0f}x"


def _failure(error: str | None) -> str:
    return "" if error is None else "FAILED: " + error.strip().splitlines()[-1][:160]


def _size(results: Results, data: str) -> str:
    titles = (part.datasets[data] for part in results.parts.values() if data in part.datasets)
    return next(titles, data)


def _introduction(results: Results, machine: str) -> str:
    datasets = {key: title for part in results.parts.values() for key, title in part.datasets.items()}
    shown = "\n".join(f"- *{key}*: {title}" for key, title in datasets.items())
    return (
        "# Benchmarks\n\n"
        "Polychrome beside a real Chroma server of one node: the same data, the same bytes on the wire, the same"
        " machine, runs in turns. Written by `make bench`; do not edit.\n\n"
        f"{machine}. Both servers with their default settings; Polychrome is all processes of `polychrome up`, its"
        f" Redis included. Figures are medians of the runs.\n\n{shown}"
    )


def _targets_note(results: Results) -> str:
    found = verdicts(results)
    counts = [sum(1 for verdict in found if verdict.met is met) for met in (True, False, None)]
    return (
        f"{counts[0]} met, {counts[1]} missed, {counts[2]} not measured, of {len(found)}. A query's target counts as"
        " met only with a recall no lower than Chroma's.\n\n"
    )


def _operations_note() -> str:
    return "Each cell: Chroma's median → Polychrome's (how many times better).\n\n"


def _wide_note(results: Results) -> str:
    series = [results.find("wide", line, "rows_per_s") for line in ("ingest, acknowledged", "ingest until indexed")]
    shown = [f"{one.line} {pair(one)} rows/s" for one in series if one]
    return ("; ".join(shown) + ".\n\n") if shown else ""
