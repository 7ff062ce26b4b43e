"""`python -m bench.against CHECKOUT`: this checkout beside another one of Polychrome, in turns, on made-up vectors.

Both clusters run at once and hold the same rows; rounds of one kind of request go to one, then to the other, in an
order that alternates. What counts is the CPU time of all processes of a cluster per request, and the ratio of the two
in each round: the machine's speed drifts, and rounds that follow each other see about the same of it.
"""

import argparse
import os
import statistics
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import orjson

from bench import cost, data, load, servers
from shared.vectors.arrays import Vectors

ROWS: Final = 20_000
DIMENSION: Final = 384
LOADED_AT_ONCE: Final = 2_000
ROUNDS: Final = 5
ROUND_S: Final = 6.0
IDLE_S_MAX: Final = 300.0
HERE: Final = Path(__file__).resolve().parents[1]


@dataclass(frozen=True)
class Kind:
    """Requests of one kind, by their number, from so many clients at once."""

    name: str
    action: str
    bodies: list[bytes]
    clients: int


@dataclass(frozen=True)
class Measured:
    """A round of requests on one cluster."""

    cpu_ms: float
    per_s: float
    p50_ms: float


def main() -> None:
    options = _options()
    dataset = data.synthetic("against", ROWS, DIMENSION)
    with ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="against-")))
        here = stack.enter_context(_cluster(HERE, directory / "here"))
        there = stack.enter_context(_cluster(options.checkout.resolve(), directory / "there"))
        collections = [server.create("against") for server in (here, there)]
        for collection in collections:
            _fill(collection, dataset.vectors)
        for kind in _kinds(dataset.queries):
            rounds = [_round(collections, kind, number) for number in range(options.rounds)]
            _print(kind, rounds)


@contextmanager
def _cluster(checkout: Path, directory: Path) -> Iterator[servers.Server]:
    """A cluster of that checkout's code, run by this environment's Python."""
    before = os.environ.get("PYTHONPATH")
    os.environ["PYTHONPATH"] = str(checkout)
    try:
        with servers.polychrome(directory, ()) as server:
            yield server
    finally:
        os.environ.pop("PYTHONPATH") if before is None else os.environ.update(PYTHONPATH=before)


def _fill(collection: servers.Collection, vectors: Vectors) -> None:
    for begin in range(0, len(vectors), LOADED_AT_ONCE):
        some = vectors[begin : begin + LOADED_AT_ONCE]
        collection.post("add", {"ids": [f"row-{begin + i}" for i in range(len(some))], "embeddings": some.tolist()})
    cost.wait_until_idle(collection.server.pid, IDLE_S_MAX)


def _kinds(vectors: Vectors) -> list[Kind]:
    queries = [
        orjson.dumps({"query_embeddings": [vector.tolist()], "n_results": 10, "include": ["distances"]})
        for vector in vectors
    ]
    rows = [
        orjson.dumps({"ids": [f"row-{number}"], "embeddings": [vector.tolist()], "documents": ["a document"]})
        for number, vector in enumerate(vectors)
    ]
    hundreds = [
        orjson.dumps({"ids": [f"new-{i}" for i in range(100)], "embeddings": vectors[at : at + 100].tolist()})
        for at in range(0, len(vectors), 100)
    ]
    return [
        Kind("query, k = 10, 1 client", "query", queries, 1),
        Kind("query, k = 10, 16 clients", "query", queries, 16),
        Kind("upsert of one row, 1 client", "upsert", rows, 1),
        Kind("upsert of one row, 16 clients", "upsert", rows, 16),
        Kind("upsert of 100 rows, 4 clients", "upsert", hundreds, 4),
    ]


def _round(collections: list[servers.Collection], kind: Kind, number: int) -> tuple[Measured, Measured]:
    """Here and there, in an order that alternates."""
    order = [0, 1] if number % 2 == 0 else [1, 0]
    measured = {which: _measure(collections[which], kind) for which in order}
    return measured[0], measured[1]


def _measure(collection: servers.Collection, kind: Kind) -> Measured:
    server = collection.server
    cost.wait_until_idle(server.pid, IDLE_S_MAX)
    requests = [load.Request("POST", collection.path(kind.action), body) for body in kind.bodies]
    before_s = server.cpu_s()
    done = load.run(load.Work(server.port, requests, kind.clients, seconds=ROUND_S))
    return Measured((server.cpu_s() - before_s) / done.count * 1000, done.per_s, done.latency_ms(0.5))


def _print(kind: Kind, rounds: list[tuple[Measured, Measured]]) -> None:
    ratios = sorted(here.cpu_ms / there.cpu_ms for here, there in rounds)
    speeds = sorted(here.per_s / there.per_s for here, there in rounds)
    here, there = ([pair[which] for pair in rounds] for which in (0, 1))
    print(
        f"{kind.name:30} CPU {_median(here):.3f} beside {_median(there):.3f} ms: x{statistics.median(ratios):.2f} "
        f"({ratios[0]:.2f} to {ratios[-1]:.2f});  requests/s x{statistics.median(speeds):.2f} "
        f"({speeds[0]:.2f} to {speeds[-1]:.2f});  p50 {statistics.median(each.p50_ms for each in here):.2f} beside "
        f"{statistics.median(each.p50_ms for each in there):.2f} ms",
        flush=True,
    )


def _median(rounds: list[Measured]) -> float:
    return statistics.median(each.cpu_ms for each in rounds)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench.against", description="This checkout beside another one.")
    parser.add_argument("checkout", type=Path, help="the other checkout's root folder")
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    options = parser.parse_args()
    if not (options.checkout / "polychrome").is_dir():
        sys.exit(f"{options.checkout} is no checkout of Polychrome")
    return options


if __name__ == "__main__":
    main()
