"""Ingest: rows acknowledged, and rows until they are indexed."""

import time
from collections.abc import Sequence
from dataclasses import dataclass

import httpx
import orjson

from bench import cost
from bench.load import Done, Generator, Work
from bench.servers import Server

INDEX_TIMEOUT_S = 1800.0


@dataclass(frozen=True)
class IngestSample:
    acknowledged_per_s: float
    indexed_per_s: float
    batch_p50_ms: float
    cpu_ms_per_row: float
    """From the first row to the last indexed one."""


def ingest(
    server: Server, generator: Generator, bodies: Sequence[bytes], rows: int, clients: int, name: str
) -> IngestSample:
    """Fills the new collection `name`."""
    collection_id = server.create(name)
    cpu_before_s = server.cpu_s()
    began_s = time.monotonic()
    done: Done = generator.run(Work("POST", f"{server.base}/{collection_id}/add", bodies, clients))
    indexed_s = wait_until_indexed(server, name, collection_id, bodies[-1], rows) - began_s
    return IngestSample(
        acknowledged_per_s=rows / done.elapsed_s,
        indexed_per_s=rows / max(indexed_s, done.elapsed_s),
        batch_p50_ms=done.latency_ms(0.5),
        cpu_ms_per_row=(server.cpu_s() - cpu_before_s) / rows * 1000,
    )


def wait_until_indexed(server: Server, name: str, collection_id: str, body: bytes, operations: int) -> float:
    """`time.monotonic()` of the moment when every row was in the index.

    Where the server tells how far its index is, that is asked. Chroma does not: it brings its index up to date before
    it answers a query and in the background, so a query is sent and its processes watched until they rest.
    Both servers are at rest on return.
    """
    if server.tells_indexed:
        indexed_s = _when_position_reached(server, name, operations)
        cost.wait_until_idle(server.pid, INDEX_TIMEOUT_S)
        return indexed_s
    _query_once(server, collection_id, body)
    return cost.wait_until_idle(server.pid, INDEX_TIMEOUT_S)


def _when_position_reached(server: Server, name: str, operations: int) -> float:
    deadline_s = time.monotonic() + INDEX_TIMEOUT_S
    while server.describe(name)["log_position"] < operations:
        if time.monotonic() > deadline_s:
            raise TimeoutError(f"{name} is not indexed after {INDEX_TIMEOUT_S} s: {server.describe(name)}")
        time.sleep(0.02)
    return time.monotonic()


def _query_once(server: Server, collection_id: str, body: bytes) -> None:
    """Any vector of the right width will do: by a `get` of the row that was written last."""
    records = f"{server.base}/{collection_id}"
    last = orjson.loads(body)["ids"][-1]
    got = httpx.post(f"{records}/get", json={"ids": [last], "include": ["embeddings"]}, timeout=INDEX_TIMEOUT_S)
    got.raise_for_status()
    query = {"query_embeddings": got.json()["embeddings"], "n_results": 1}
    httpx.post(f"{records}/query", json=query, timeout=INDEX_TIMEOUT_S).raise_for_status()
