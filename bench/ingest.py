"""Ingest: rows acknowledged, and rows until they are indexed."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import httpx

from bench import cost, load
from bench.data import Dataset
from bench.servers import Collection, Server

INDEX_TIMEOUT_S: Final = 3600.0
BATCH_ROWS: Final = 1000
CLIENTS: Final = 4


@dataclass(frozen=True)
class IngestSample:
    acknowledged_per_s: float
    indexed_per_s: float
    cpu_ms_per_row: float
    """From the first row to the last indexed one."""


def ingest(collection: Collection, bodies: Sequence[bytes], rows: int) -> IngestSample:
    """Fills the new collection with the bodies' rows."""
    server = collection.server
    cpu_before_s = server.cpu_s()
    began_s = time.monotonic()
    done = load.run(load.Work(server.port, adds(collection, bodies), CLIENTS))
    indexed_s = wait_until_indexed(collection) - began_s
    if (count := collection.get("count")) != rows:
        raise RuntimeError(f"{server.name} counts {count} rows of {rows}")
    return IngestSample(
        acknowledged_per_s=rows / done.elapsed_s,
        indexed_per_s=rows / max(indexed_s, done.elapsed_s),
        cpu_ms_per_row=(server.cpu_s() - cpu_before_s) / rows * 1000,
    )


def fill(server: Server, name: str, dataset: Dataset) -> tuple[Collection, IngestSample]:
    collection = server.create(name)
    bodies = dataset.write_bodies(range(len(dataset)), BATCH_ROWS)
    return collection, ingest(collection, bodies, len(dataset))


def adds(collection: Collection, bodies: Sequence[bytes]) -> list[load.Request]:
    return [load.Request("POST", collection.path("add"), body) for body in bodies]


def wait_until_indexed(collection: Collection) -> float:
    """`time.monotonic()` of the moment when every row was in the index. The server is at rest on return.

    Chroma does not tell: it brings its index up to date before it answers a query and in the background, so a query is
    sent and its processes watched until they rest.
    """
    server = collection.server
    indexed_s = wait_until_taken_up(collection)
    resting_since_s = cost.wait_until_idle(server.pid, INDEX_TIMEOUT_S)
    return indexed_s if server.tells_indexed else resting_since_s


def wait_until_taken_up(collection: Collection) -> float:
    """`time.monotonic()` of the answer to a query that saw every row in the index: on Polychrome one that was sent when
    no operation was in the log alone any more, so that the worker took up the new segments; on Chroma any.
    """
    server = collection.server
    if server.tells_indexed:
        deadline_s = time.monotonic() + INDEX_TIMEOUT_S
        with httpx.Client(timeout=INDEX_TIMEOUT_S) as client:
            url = f"{server.url}{collection.path('indexing_status')}"
            while client.get(url).raise_for_status().json()["num_unindexed_ops"]:
                if time.monotonic() > deadline_s:
                    raise TimeoutError(f"{collection.name} is not indexed after {INDEX_TIMEOUT_S} s")
                time.sleep(0.05)
    query_once(collection)
    return time.monotonic()


def query_once(collection: Collection) -> None:
    """Any vector of the right width will do: that of some row."""
    rows = collection.post("get", {"limit": 1, "include": ["embeddings"]})
    collection.post("query", {"query_embeddings": rows["embeddings"], "n_results": 1})
