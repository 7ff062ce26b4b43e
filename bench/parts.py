"""The parts that ask a filled collection. Each gives series; what they are held to stands in `targets`."""

import itertools
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Final

from bench import filters, load
from bench.data import Dataset
from bench.ingest import IngestSample, fill, wait_until_indexed
from bench.inprocess import InProcess
from bench.operations import (
    NEIGHBOURS,
    Operation,
    Sample,
    common,
    filtered_query,
    gets,
    measure,
    plain_queries,
    plain_query,
    recall,
    sample,
    upserts,
)
from bench.series import HNSWLIB, POLYCHROME, Series, samples
from bench.servers import Collection, Server
from bench.stage import Stage, say

READ_QUANTITIES: Final = ("p50_ms", "p99_ms", "per_s", "cpu_ms")
INGEST_QUANTITIES: Final = ("acknowledged_per_s", "indexed_per_s", "cpu_ms_per_row")
_MIB: Final = 1024 * 1024


def ingest(stage: Stage) -> list[Series]:
    """The filling of the stage is the first run; the others fill collections that are deleted again."""

    def again(server: Server, number: int) -> Any:
        say(f"  ingest again, {server.name}")
        collection, found = fill(server, f"again-{number}", stage.dataset)
        collection.delete()
        return found

    more = stage.alternate(stage.scale.ingest_runs - 1, again)
    return _ingest_series(stage.dataset.key, {who: [first, *more[who]] for who, first in stage.filled.items()})


def memory(stage: Stage) -> list[Series]:
    """Measured when the servers had started and when they had been filled."""
    data, rows = stage.dataset.key, len(stage.dataset)
    idle = {who: sum(mib.values()) for who, mib in stage.idle_mib.items()}
    full = {who: sum(mib.values()) for who, mib in stage.filled_mib.items()}
    per_row = {who: [(full[who] - idle[who]) * _MIB / rows] for who in full}
    found = [
        Series(data, "memory, idle", "mib", {who: [mib] for who, mib in idle.items()}),
        Series(data, "memory, filled", "mib", {who: [mib] for who, mib in full.items()}),
        Series(data, "memory added by a row", "bytes_per_row", per_row),
    ]
    for when, by_server in (("idle", stage.idle_mib), ("filled", stage.filled_mib)):
        processes = by_server[POLYCHROME]
        found += [Series(data, f"{when}: {process}", "mib", {POLYCHROME: [mib]}) for process, mib in processes.items()]
    return found


def queries(stage: Stage) -> Iterator[Series]:
    plain, *others = plain_queries(stage.dataset)
    yield from _reads(stage, [plain], stage.dataset, stage.collections, stage.in_process)
    yield from _reads(stage, others, stage.dataset, stage.collections)


def where(stage: Stage) -> Iterator[Series]:
    return _filtered(stage, filters.wheres(stage.dataset))


def texts(stage: Stage) -> Iterator[Series]:
    return _filtered(stage, filters.texts(stage.dataset))


def reads(stage: Stage) -> Iterator[Series]:
    return _reads(stage, gets(stage.dataset), stage.dataset, stage.collections)


def common_lines(stage: Stage) -> Iterator[Series]:
    """The measurements at every size, on a stage of its own: the filling of the stage, reads, single writes."""
    return _common(stage, stage.dataset, stage.collections, stage.filled, stage.in_process)


def small(stage: Stage) -> Iterator[Series]:
    """The measurements on the first rows of the stage's dataset, in a collection beside the large one."""
    data = stage.dataset.head("small", min(stage.scale.few_rows, len(stage.dataset)))
    stage.others.append(data)
    filled = {server.name: fill(server, data.key, data) for server in stage.servers}
    collections = {who: collection for who, (collection, _) in filled.items()}
    in_process = InProcess.open(data, stage.setting.cache)
    yield from _common(stage, data, collections, {who: found for who, (_, found) in filled.items()}, in_process)
    for collection in collections.values():
        collection.delete()


def beams(stage: Stage) -> list[Series]:
    """Latency against recall. The beam of a search is part of the configuration, which Chroma reads when it opens its
    index: so both servers are started anew for each, after a kill, which is the quickest end.
    """
    operation = plain_query(stage.dataset, clients=(1,))
    truth = stage.dataset.all_nearest(NEIGHBOURS)
    found: list[Series] = []
    try:
        for beam in stage.scale.beams:
            _configure(stage, beam)
            line = f"ef_search {beam}"
            found += [_renamed(series, line) for series in _reads(stage, [operation], stage.dataset, stage.collections)]
            span_s, graph = stage.scale.seconds, stage.in_process
            alone = {HNSWLIB: [graph.measure(span_s, beam) for _ in range(stage.scale.runs)]}
            found += samples(stage.dataset.key, line, alone, READ_QUANTITIES, 1)
            recalled = {HNSWLIB: [graph.recall(truth, beam)]}
            found.append(Series(stage.dataset.key, line, "recall", recalled))
    finally:
        _configure(stage, 100)
    return _joined(found)


def concurrency(stage: Stage) -> list[Series]:
    operation = plain_query(stage.dataset, clients=stage.scale.clients)
    found = _reads(stage, [operation], stage.dataset, stage.collections)
    return [_renamed(series, "concurrency") for series in found]


def writes(stage: Stage) -> Iterator[Series]:
    yield from _upserts(stage, stage.dataset, stage.collections)
    yield from _counts_after_writes(stage)


def _configure(stage: Stage, beam: int) -> None:
    say(f"  ef_search {beam}")
    for server in stage.servers:
        stage.collections[server.name].configure(ef_search=beam)
        server.kill()
        server.start()


def _common(
    stage: Stage,
    data: Dataset,
    collections: dict[str, Collection],
    filled: dict[str, IngestSample],
    in_process: InProcess,
) -> Iterator[Series]:
    plain, *others = common(data)
    yield from _ingest_series(data.key, {who: [found] for who, found in filled.items()})
    yield from _reads(stage, [plain], data, collections, in_process)
    yield from _reads(stage, others, data, collections)
    yield from _upserts(stage, data, collections)


def _filtered(stage: Stage, families: Iterable[filters.Family]) -> Iterator[Series]:
    """Measures one family after the other, because each keeps its bodies."""
    for family in families:
        yield from _reads(stage, [filtered_query(stage.dataset, family)], stage.dataset, stage.collections)


def _reads(
    stage: Stage,
    operations: Iterable[Operation],
    data: Dataset,
    collections: dict[str, Collection],
    in_process: InProcess | None = None,
) -> Iterator[Series]:
    """With `in_process`, hnswlib's turn comes after the servers' in each run."""
    for operation in operations:
        say(f"  {data.key}: {operation.line} {operation.detail}")
        recalled = {who: recall(collection, operation) for who, collection in collections.items()}
        known = {who: [value] for who, value in recalled.items() if value is not None}
        starts = itertools.count(operation.checked, 97)
        alone: list[Sample] = []
        by_clients: dict[int, dict[str, list[Sample]]] = {
            n: {who: [] for who in collections} for n in operation.clients
        }
        for _ in range(stage.scale.runs):
            for who, collection in collections.items():
                for clients in operation.clients:
                    span_s = stage.scale.seconds
                    by_clients[clients][who].append(measure(collection, operation, clients, span_s, next(starts)))
            if in_process is not None:
                alone.append(in_process.measure(stage.scale.seconds))
        for clients, by_who in by_clients.items():
            with_alone = {**by_who, HNSWLIB: alone} if alone and clients == 1 else by_who
            yield from samples(data.key, operation.line, with_alone, READ_QUANTITIES, clients, operation.detail)
        if in_process is not None:
            known[HNSWLIB] = [in_process.recall(data.all_nearest(NEIGHBOURS))]
        yield Series(data.key, operation.line, "recall", known, detail=operation.detail)


def _upserts(stage: Stage, data: Dataset, collections: dict[str, Collection]) -> list[Series]:
    """The collections are at rest again on return."""
    say(f"  {data.key}: single-row upsert")
    found: list[Series] = []
    for clients in (1, 16):
        rows = stage.scale.upserts * (1 if clients == 1 else 2)

        def once(server: Server, number: int, clients: int = clients, rows: int = rows) -> Sample:
            operation = upserts(data, rows, seed=number * 100 + clients)
            return measure(collections[server.name], operation, clients, 0.0, 0)

        by_who = stage.alternate(stage.scale.runs, once)
        found += samples(data.key, "single-row upsert", by_who, READ_QUANTITIES, clients)
    for collection in collections.values():
        wait_until_indexed(collection)
    return found


def _counts_after_writes(stage: Stage) -> list[Series]:
    """A client: a row is written, then counted. The latency is that of the count alone."""
    say(f"  {stage.dataset.key}: count right after a write")
    rows = stage.scale.upserts // 2

    def once(server: Server, number: int) -> Sample:
        collection = stage.collections[server.name]
        written = upserts(stage.dataset, rows, seed=1000 + number).requests(collection)
        counted = load.Request("GET", collection.path("count"))
        pairs = [request for one in written for request in (one, counted)]
        cpu_before_s = server.cpu_s()
        done = load.run(load.Work(server.port, pairs, 1, keep=len(pairs)))
        cpu_s = server.cpu_s() - cpu_before_s
        if wrong := {answer for n, answer in done.answers.items() if n % 2} - {str(len(stage.dataset)).encode()}:
            raise RuntimeError(f"{server.name} counts {wrong}")
        counts_s = done.latencies_s[done.numbers % 2 == 1]
        return sample(load.Done(float(counts_s.sum()), counts_s, done.numbers[done.numbers % 2 == 1], {}), cpu_s)

    by_who = stage.alternate(stage.scale.runs, once)
    return samples(stage.dataset.key, "count right after a write", by_who, ("p50_ms", "p99_ms", "per_s"), 1)


def _ingest_series(data: str, by_who: dict[str, Sequence[Any]]) -> list[Series]:
    lines = dict(zip(INGEST_QUANTITIES, ("ingest, acknowledged", "ingest until indexed", "ingest, CPU"), strict=True))
    found: list[Series] = []
    for attribute, line in lines.items():
        quantity = "cpu_ms_per_row" if attribute == "cpu_ms_per_row" else "rows_per_s"
        values = {who: [getattr(one, attribute) for one in many] for who, many in by_who.items()}
        found.append(Series(data, line, quantity, values))
    return found


def _renamed(series: Series, line: str) -> Series:
    return Series(series.data, line, series.quantity, series.values, series.clients, series.detail)


def _joined(found: Iterable[Series]) -> list[Series]:
    """Series of the same quantity and line become one with all who took part."""
    joined: dict[tuple[str, str, str, int], Series] = {}
    for one in found:
        key = (one.data, one.line, one.quantity, one.clients)
        before = joined.get(key)
        values = {**(before.values if before else {}), **one.values}
        joined[key] = Series(one.data, one.line, one.quantity, values, one.clients, one.detail)
    return list(joined.values())
