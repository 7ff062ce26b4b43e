"""Attacks of a few bytes or of many, over real processes: each is refused quickly with a clear 4xx, takes little of the
frontend's memory, and leaves a neighbour alone.

What a neighbour's request takes is compared with what it takes alone in the same run, on a machine that may be busy.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import httpx
import numpy as np
import pytest

from tests.cluster.harness import Cluster

pytestmark = pytest.mark.timeout(180)

DATABASE = "/api/v2/tenants/default_tenant/databases/default_database"
WIDTH = 16
ANSWER_S_MAX = 20.0
"""Longest time of an attack. They took from 28 s to more than 60 s each."""

MEMORY_MIB_MAX = 500
"""Most memory that an attack may add to the frontend's largest; two bodies of brackets took 2.6 GB."""

STALL_RATIO_MAX = 12.0
STALL_S = 1.5
"""A neighbour's slowest request beside an attack takes at most so many times its slowest alone, and so much more."""


class Attack(NamedTuple):
    """A request that must be refused: with this status, and a text of its message."""

    name: str
    path: str
    body: Callable[[], bytes]
    status: int
    says: str


def dumped(body: Any) -> Callable[[], bytes]:
    return lambda: json.dumps(body).encode()


def brackets(nested: bytes) -> Callable[[], bytes]:
    return lambda: b'{"a":[' + (nested + b",") * 13_000_000 + b"1]}"


VECTOR = [0.5] * WIDTH
VICTIM = "{victim}"
ATTACKS = (
    Attack("objects", f"{VICTIM}/get", brackets(b"{}"), 400, "objects and arrays, at most 1048576"),
    Attack("arrays", f"{VICTIM}/get", brackets(b"[]"), 400, "objects and arrays, at most 1048576"),
    Attack(
        "metadata keys",
        f"{VICTIM}/upsert",
        lambda: json.dumps(
            {"ids": ["x"], "embeddings": [VECTOR], "metadatas": [{f"key{at}": 1 for at in range(300_000)}]}
        ).encode(),
        400,
        "metadatas[0]: 300000 metadata keys, at most 1024",
    ),
    Attack(
        "metadata keys of many records",
        f"{VICTIM}/upsert",
        lambda: json.dumps(
            {
                "ids": [str(at) for at in range(300)],
                "embeddings": [VECTOR] * 300,
                "metadatas": [{f"{at} {key}": 1 for key in range(1000)} for at in range(300)],
            }
        ).encode(),
        400,
        "pairs of a metadata key and a type, at most 10000",
    ),
    Attack("a tenant's name", "/api/v2/tenants", dumped({"name": "t" * 39_000_000}), 400, "39000000 bytes of a name"),
    Attack(
        "collection metadata", f"{DATABASE}/collections", dumped({"name": "big", "metadata": {"a": "x" * 10_000_000}}),
        400, "bytes, at most 262144",
    ),
    Attack(
        "query vectors", f"{VICTIM}/query", dumped({"query_embeddings": [VECTOR] * 20_000, "n_results": 3000}),
        400, "20000 vectors or texts, at most 10000",
    ),
    Attack(
        "results", f"{VICTIM}/query", dumped({"query_embeddings": [VECTOR] * 5_000, "n_results": 3000}),
        400, "at most 1000000",
    ),
    Attack(
        "filter values", f"{VICTIM}/get", dumped({"where": {"k": {"$in": list(range(700_000))}}}),
        400, "700000 values of $in and $nin, at most 10000",
    ),
    Attack(
        "regular expressions", f"{VICTIM}/get", dumped({"where_document": {"$or": [{"$regex": "a"}] * 20_000}}),
        400, "20001 clauses, at most 1024",
    ),
    Attack(
        "facets", f"{VICTIM}/search",
        dumped({"searches": [{"facets": {"keys": list("abcdefgh"), "limit": 2**32 - 1}}] * 16}),
        400, "128 keys of facets and groups, at most 64",
    ),
    Attack(
        "searches", f"{VICTIM}/search", dumped({"searches": [{"select": {"keys": ["#embedding"]}}] * 256}),
        400, "results",
    ),
    Attack("a path", "/api/v2/tenants/" + "x" * 60_000, lambda: b"{}", 414, "path: 60016 bytes, at most 8192"),
)  # fmt: skip


@dataclass
class Neighbour:
    """Another client, that queries its own collection and asks for the heartbeat, one after the other."""

    url: str
    collection: str
    seconds: list[float] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)
    _ended: threading.Event = field(default_factory=threading.Event)

    @contextmanager
    def at_work(self) -> Iterator[list[float]]:
        """The seconds of each of its requests within the context."""
        self.seconds, self._ended = [], threading.Event()
        working = threading.Thread(target=self._work)
        working.start()
        try:
            yield self.seconds
        finally:
            self._ended.set()
            working.join()

    def _work(self) -> None:
        query = {"query_embeddings": [VECTOR], "n_results": 3}
        with httpx.Client(base_url=self.url, timeout=120) as client:
            while not self._ended.wait(0.01):
                began_s = time.perf_counter()
                for answer in (client.post(f"{self.collection}/query", json=query), client.get("/api/v2/heartbeat")):
                    if answer.status_code != 200:
                        self.failures.append(answer.text)
                self.seconds.append(time.perf_counter() - began_s)


def _filled(client: httpx.Client, name: str, rows: int) -> str:
    made = client.post(f"{DATABASE}/collections", json={"name": name, "get_or_create": True}).json()
    path = f"{DATABASE}/collections/{made['id']}"
    vectors = np.random.default_rng(1).normal(size=(rows, WIDTH)).round(3).tolist()
    records = {"ids": [str(at) for at in range(rows)], "embeddings": vectors, "metadatas": [{"k": 1}] * rows}
    assert client.post(f"{path}/upsert", json=records).status_code == 200
    return path


def _peak_mib(cluster: Cluster) -> int:
    status = Path(f"/proc/{cluster.process('frontend-1').pid}/status").read_text()
    return int(next(line for line in status.splitlines() if line.startswith("VmHWM")).split()[1]) // 1024


def test_an_attack_is_refused_quickly_and_leaves_a_neighbour_alone(cluster: Cluster) -> None:
    with httpx.Client(base_url=cluster.url, timeout=120) as client:
        neighbour = Neighbour(cluster.url, _filled(client, "attacks-neighbour", 100))
        victim = _filled(client, "attacks-victim", 4000)
        with neighbour.at_work() as alone:
            time.sleep(1.5)
        before_mib = _peak_mib(cluster)
        wrong = []
        for attack in ATTACKS:
            body, path = attack.body(), attack.path.replace(VICTIM, victim)
            with neighbour.at_work() as beside:
                began_s = time.perf_counter()
                answer = client.post(path, content=body)
                took_s = time.perf_counter() - began_s
            slowest_s = max(beside, default=0.0)
            if answer.status_code != attack.status or attack.says not in answer.text:
                wrong.append(f"{attack.name}: {answer.status_code} {answer.text[:200]}")
            if took_s > ANSWER_S_MAX or slowest_s > STALL_RATIO_MAX * max(alone) + STALL_S:
                wrong.append(f"{attack.name}: took {took_s:.1f} s, a neighbour's slowest {slowest_s:.2f} s")
        assert not wrong, (max(alone), wrong)
        assert not neighbour.failures
        assert _peak_mib(cluster) - before_mib < MEMORY_MIB_MAX
        schema = client.get(f"{DATABASE}/collections/attacks-victim").json()["schema"]
        assert len(json.dumps(schema)) < 5000, "what was refused has left metadata keys behind"
