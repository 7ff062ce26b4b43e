"""Reads and small writes on a filled collection: latency, throughput, CPU of the server per operation, recall."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import orjson

from bench.data import NEIGHBOURS, Dataset
from bench.load import Generator, Work
from bench.servers import Server

WARM_UP_S: Final = 0.3


@dataclass(frozen=True)
class Operation:
    """`action` is the last part of the path. With `truth`, answers are kept and their recall is measured."""

    name: str
    action: str
    bodies: Sequence[bytes]
    clients: int = 1
    method: str = "POST"
    once: bool = False
    truth: Sequence[frozenset[str]] | None = None


@dataclass(frozen=True)
class Sample:
    p50_ms: float
    p99_ms: float
    per_s: float
    cpu_ms: float
    recall: float | None


def measure(server: Server, generator: Generator, collection_id: str, operation: Operation, seconds: float) -> Sample:
    url = f"{server.base}/{collection_id}/{operation.action}"

    def work(duration_s: float | None, keep: bool) -> Work:
        return Work(operation.method, url, operation.bodies, operation.clients, duration_s, keep)

    if not operation.once:
        generator.run(work(WARM_UP_S, keep=False))
    cpu_before_s = server.cpu_s()
    done = generator.run(work(None if operation.once else seconds, keep=operation.truth is not None))
    cpu_s = server.cpu_s() - cpu_before_s
    return Sample(
        p50_ms=done.latency_ms(0.5),
        p99_ms=done.latency_ms(0.99),
        per_s=done.per_s,
        cpu_ms=cpu_s / len(done.latencies_s) * 1000,
        recall=None if operation.truth is None else _recall(done.answers, operation.truth),
    )


def reads(dataset: Dataset) -> list[Operation]:
    truth = dataset.truth()
    plain = dataset.query_bodies()
    size = int(np.median([metadata["installed_size"] for metadata in dataset.metadatas]))
    filters: dict[str, dict[str, Any]] = {
        "where section = haskell (3 %)": {"where": {"section": "haskell"}},
        "where priority != optional (1 %)": {"where": {"priority": {"$ne": "optional"}}},
        "where installed_size > median (50 %)": {"where": {"installed_size": {"$gt": size}}},
        "where $and of three": {
            "where": {"$and": [{"section": "libs"}, {"has_homepage": True}, {"installed_size": {"$lt": size}}]}
        },
        "where_document $contains editor": {"where_document": {"$contains": "editor"}},
    }
    random = np.random.default_rng(3)
    some_ids = [[dataset.ids[row] for row in random.integers(0, len(dataset), 10)] for _ in range(500)]
    return [
        *(Operation(f"query k=10, {n} clients", "query", plain, clients=n, truth=truth) for n in (1, 4, 16)),
        *(Operation(f"query {name}", "query", dataset.query_bodies(**where)) for name, where in filters.items()),
        Operation("get by 10 ids", "get", [orjson.dumps({"ids": ids}) for ids in some_ids]),
        Operation("get where section = haskell, limit 100", "get", [_get({"section": "haskell"}, 100)]),
        Operation("count", "count", [b""], method="GET"),
    ]


def single_row_upserts(dataset: Dataset, count: int) -> Operation:
    rows = np.random.default_rng(4).permutation(len(dataset))[:count]
    return Operation("single-row upsert", "upsert", [dataset.write_body([int(row)]) for row in rows], once=True)


def _get(where: dict[str, object], limit: int) -> bytes:
    return orjson.dumps({"where": where, "limit": limit})


def _recall(answers: dict[int, bytes], truth: Sequence[frozenset[str]]) -> float:
    found = sum(len(truth[number].intersection(orjson.loads(answer)["ids"][0])) for number, answer in answers.items())
    return found / (len(answers) * NEIGHBOURS)
