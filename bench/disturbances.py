"""The parts in which more happens than questions: ingest beside queries, a crash, a thousand small collections."""

import time
from dataclasses import dataclass
from typing import Any, Final

import httpx
import orjson

from bench import load
from bench.data import Dataset
from bench.ingest import BATCH_ROWS, CLIENTS, adds, ingest, wait_until_taken_up
from bench.operations import Sample, plain_query, sample
from bench.series import Series, samples
from bench.servers import COLLECTIONS, Collection, Server
from bench.stage import Stage, say

READERS: Final = 4
SMALL_ROWS: Final = 100
QUERIES_EACH: Final = 3
_RESTART_S_MAX: Final = 120.0
_LONG_S: Final = 3600.0


@dataclass(frozen=True)
class BusySample:
    """Timings of the queries while rows came in and were indexed."""

    reads: Sample
    rows_per_s: float


def busy(stage: Stage) -> list[Series]:
    """A third of the rows is there; then each run sends its share of the others while readers go on, from the first row
    until the last one is indexed. (A query on Chroma indexes what was acknowledged before it, so there the last
    acknowledgement ends it.)
    """
    data, runs = stage.dataset, stage.scale.runs
    before = len(data) // 3
    share = (len(data) - before) // runs
    operation = plain_query(data)
    collections = {server.name: server.create("busy") for server in stage.servers}
    for who, collection in collections.items():
        say(f"  {data.key}: {before:,} rows before the queries during ingest, {who}")
        ingest(collection, data.write_bodies(range(before), BATCH_ROWS), before)

    def once(server: Server, number: int) -> BusySample:
        say(f"  {data.key}: queries during ingest, {server.name}")
        collection = collections[server.name]
        rows = range(before + number * share, before + (number + 1) * share)
        bodies = adds(collection, data.write_bodies(rows, BATCH_ROWS))
        cpu_before_s = server.cpu_s()
        readers = load.Running(load.Work(server.port, operation.requests(collection), READERS, _LONG_S))
        try:
            began_s = time.monotonic()
            load.run(load.Work(server.port, bodies, CLIENTS))
            wait_until_taken_up(collection)
            elapsed_s = time.monotonic() - began_s
            readers.stop()
            done = readers.result()
        finally:
            readers.end()
        return BusySample(sample(done, server.cpu_s() - cpu_before_s), len(rows) / elapsed_s)

    by_who = stage.alternate(runs, once)
    for collection in collections.values():
        collection.delete()
    reads = {who: [one.reads for one in found] for who, found in by_who.items()}
    line = "queries during bulk ingest"
    return [
        *samples(data.key, line, reads, ("p50_ms", "p99_ms", "per_s"), READERS),
        *samples(data.key, line, by_who, ("rows_per_s",), READERS),
    ]


def restart(stage: Stage) -> list[Series]:
    """SIGKILL to all processes at once, the same command again at once, and queries until one is answered rightly."""
    data = stage.dataset

    def once(server: Server, number: int) -> float:
        say(f"  {data.key}: kill -9, {server.name}")
        row = (number + 1) * 997 % len(data)
        began_s = time.monotonic()
        server.kill()
        server.launch()
        while not _finds(stage.collections[server.name], data, row):
            if time.monotonic() - began_s > _RESTART_S_MAX:
                raise TimeoutError(f"{server.name} does not answer after kill -9:\n{server.log_end()}")
            time.sleep(0.01)
        found_s = time.monotonic() - began_s
        if (count := stage.collections[server.name].get("count")) != len(data):
            raise RuntimeError(f"{server.name} counts {count} rows after kill -9")
        return found_s

    return [Series(data.key, "kill -9 to the first right answer", "seconds", stage.alternate(stage.scale.runs, once))]


def _finds(collection: Collection, data: Dataset, row: int) -> bool:
    body = {"query_embeddings": [data.vectors[row].tolist()], "n_results": 10}
    try:
        answer = httpx.post(f"{collection.server.url}{collection.path('query')}", json=body, timeout=30.0)
    except httpx.TransportError:
        return False
    return answer.status_code == 200 and data.ids[row] in answer.json()["ids"][0]


def collections(stage: Stage) -> list[Series]:
    """Many collections of 100 rows: all are created, then filled, then queried, by four clients. Once: with 1,000 of
    them one run of Chroma takes longer than all other parts together.
    """
    phases = ("create", "fill", "query", "all")

    def once(server: Server, number: int) -> list[float]:
        say(f"  {stage.scale.collections:,} small collections, {server.name}")
        return _many_collections(server, stage.dataset, stage.scale.collections, number)

    by_who = stage.alternate(1, once)
    line = f"{stage.scale.collections:,} collections of {SMALL_ROWS} rows"
    return [
        Series("collections", f"{line}: {phase}", "seconds", {who: [run[n] for run in r] for who, r in by_who.items()})
        for n, phase in enumerate(phases)
    ]


def _many_collections(server: Server, data: Dataset, count: int, run: int) -> list[float]:
    """Seconds of each phase and of all together."""
    names = [f"small-{run}-{number}" for number in range(count)]
    creates = [load.Request("POST", COLLECTIONS, orjson.dumps({"name": name})) for name in names]
    created = load.run(load.Work(server.port, creates, CLIENTS, keep=count))
    found = [Collection(server, name, orjson.loads(created.answers[number])["id"]) for number, name in enumerate(names)]
    firsts = [number * SMALL_ROWS % (len(data) - SMALL_ROWS) for number in range(count)]
    writes = [
        request
        for collection, first in zip(found, firsts, strict=True)
        for request in adds(collection, [data.write_body(range(first, first + SMALL_ROWS))])
    ]
    filled = load.run(load.Work(server.port, writes, CLIENTS))
    wanted = [(number, turn) for turn in range(QUERIES_EACH) for number in range(count)]
    queries = [
        load.Request("POST", found[number].path("query"), _query(data, firsts[number] + turn * 7))
        for number, turn in wanted
    ]
    queried = load.run(load.Work(server.port, queries, CLIENTS, keep=len(queries)))
    for place, (number, turn) in enumerate(wanted):
        ids: Any = orjson.loads(queried.answers[place])["ids"][0]
        if len(ids) != 10 or data.ids[firsts[number] + turn * 7] not in ids:
            raise RuntimeError(f"{server.name}: a small collection answers {ids}")
    spans_s = [created.elapsed_s, filled.elapsed_s, queried.elapsed_s]
    load.run(load.Work(server.port, [load.Request("DELETE", f"{COLLECTIONS}/{name}") for name in names], CLIENTS))
    return [*spans_s, sum(spans_s)]


def _query(data: Dataset, row: int) -> bytes:
    return orjson.dumps({"query_embeddings": [data.vectors[row].tolist()], "n_results": 10})
