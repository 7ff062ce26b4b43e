"""`python -m bench.search`: what a search costs, and what two `$knn`s in one cost beside each alone; and a fork.

The Debian catalogue with its MiniLM vectors and BM25 vectors of its descriptions, in one shard, indexed. One client,
one request at a time; the kinds of search take turns. Medians of the time of a request, and CPU over all processes of
the server.
"""

import argparse
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import httpx
import orjson
import pyarrow.parquet as pq

from bench import cost
from bench.data import debian
from bench.servers import Server, polychrome
from deploy import real_data
from examples.bm25 import Bm25, Vector

COLLECTIONS = "/api/v2/tenants/default_tenant/databases/default_database/collections"
BATCH_ROWS = 1000
CANDIDATES = 50
NEIGHBOURS = 10
QUERIES = 300
ROUNDS = 3
FORKS = 100
SCHEMA = {
    "defaults": {},
    "keys": {"words": {"sparse_vector": {"sparse_vector_index": {"enabled": True, "config": {}}}}},
}

Json = dict[str, Any]


def dense(vector: Sequence[float], **options: Any) -> Json:
    return {"$knn": {"query": vector, "limit": CANDIDATES, **options}}


def sparse(vector: Vector, **options: Any) -> Json:
    query = {"indices": vector[0], "values": vector[1]}
    return {"$knn": {"query": query, "key": "words", "limit": CANDIDATES, **options}}


def fused(*parts: Json) -> Json:
    """Reciprocal rank fusion as the official clients compose it."""
    shares = [{"$div": {"left": {"$val": 1.0}, "right": {"$sum": [{"$val": 60}, part]}}} for part in parts]
    return {"$mul": [{"$val": -1}, {"$sum": shares}]}


def body(rank: Json, **more: Any) -> bytes:
    search = {"rank": rank, "limit": {"limit": NEIGHBOURS}, "select": {"keys": ["#document", "#score"]}, **more}
    return orjson.dumps({"searches": [search]})


def searches(vectors: Sequence[Sequence[float]], words: Sequence[Vector]) -> dict[str, list[bytes]]:
    ranks = {"return_rank": True, "default": 1000.0}
    pairs = list(zip(vectors, words, strict=True))
    return {
        "dense": [body(dense(vector)) for vector in vectors],
        "sparse": [body(sparse(vector)) for vector in words],
        "dense and sparse, RRF": [body(fused(dense(a, **ranks), sparse(b, **ranks))) for a, b in pairs],
        "the same, of one section": [
            body(fused(dense(a, **ranks), sparse(b, **ranks)), filter={"section": "libs"}) for a, b in pairs
        ],
    }


def main() -> None:
    options = _options()
    dataset = debian(options.data, options.rows)
    model = Bm25.of(dataset.documents)
    shorts = pq.read_table(options.data / "debian-queries.parquet", columns=["short"])["short"].to_pylist()
    kinds = searches(
        [vector.tolist() for vector in dataset.queries[:QUERIES]],
        [model.query(text, rarity=True) for text in shorts[:QUERIES]],
    )
    with (
        tempfile.TemporaryDirectory(prefix="bench-") as directory,
        polychrome(Path(directory) / "data", ("--embedders", "0")) as server,
        httpx.Client(base_url=server.url, timeout=300) as http,
    ):
        path = _filled(http, dataset, model)
        cost.wait_until_idle(server.pid, timeout_s=600)
        found = _measure(http, server, f"{path}/search", kinds)
        found["fork of all"] = _forked(http, server, path)
    for name, (ms, cpu_ms) in found.items():
        print(f"{name:28} p50 {ms:6.2f} ms   CPU {cpu_ms:6.2f} ms")
    parts = [found[name] for name in ("dense", "sparse")]
    both = found["dense and sparse, RRF"]
    shares = [both[column] / sum(part[column] for part in parts) for column in (0, 1)]
    print(f"both in one, of the sum of each alone: {shares[0]:.0%} of the time, {shares[1]:.0%} of the CPU")


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench.search", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--data", type=Path, default=real_data.DIRECTORY, help="folder of the Debian catalogue")
    parser.add_argument("--rows", type=int, default=None, help="only the first so many packages")
    return parser.parse_args()


def _filled(http: httpx.Client, dataset: Any, model: Bm25) -> str:
    created = http.post(COLLECTIONS, json={"name": "packages", "schema": SCHEMA})
    created.raise_for_status()
    path = f"{COLLECTIONS}/{created.json()['id']}"
    for start in range(0, len(dataset), BATCH_ROWS):
        rows = range(start, min(start + BATCH_ROWS, len(dataset)))
        batch = orjson.loads(dataset.write_body(rows))
        for metadata, (indices, values) in zip(batch["metadatas"], model.documents[start:], strict=False):
            metadata["words"] = {"indices": indices, "values": values}
        http.post(f"{path}/add", content=orjson.dumps(batch)).raise_for_status()
    deadline_s = time.monotonic() + 900
    while (status := http.get(f"{path}/indexing_status").json())["num_unindexed_ops"]:
        if time.monotonic() > deadline_s:
            sys.exit(f"not indexed in time: {status}")
        time.sleep(0.5)
    return path


def _measure(
    http: httpx.Client, server: Server, path: str, kinds: dict[str, list[bytes]]
) -> dict[str, tuple[float, float]]:
    times: dict[str, list[float]] = {name: [] for name in kinds}
    cpu: dict[str, list[float]] = {name: [] for name in kinds}
    for _ in range(ROUNDS):
        for name, bodies in kinds.items():
            before_s = cost.cpu_s(cost.family(server.pid))
            for content in bodies:
                began_s = time.perf_counter()
                http.post(path, content=content).raise_for_status()
                times[name].append(1000 * (time.perf_counter() - began_s))
            cpu[name].append(1000 * (cost.cpu_s(cost.family(server.pid)) - before_s) / len(bodies))
    return {name: (statistics.median(times[name]), statistics.median(cpu[name])) for name in kinds}


def _forked(http: httpx.Client, server: Server, path: str) -> tuple[float, float]:
    times: list[float] = []
    before_s = cost.cpu_s(cost.family(server.pid))
    for number in range(FORKS):
        began_s = time.perf_counter()
        http.post(f"{path}/fork", json={"new_name": f"fork-{number}"}).raise_for_status()
        times.append(1000 * (time.perf_counter() - began_s))
    return statistics.median(times), 1000 * (cost.cpu_s(cost.family(server.pid)) - before_s) / FORKS


if __name__ == "__main__":
    main()
