"""Redis dies and comes back while the bucket takes no writes: reads and writes go on, over real processes."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.cluster.harness import Cluster, ClusterBuilder
from tests.cluster.stores import ObjectStorage
from tests.cluster.waiting import wait_until
from tests.faults.s3_proxy import FaultProxy, faulty_storage

pytestmark = pytest.mark.timeout(300)
BASE = "/api/v2/tenants/default_tenant/databases/default_database/collections"
OUTAGE_S_MAX = 15.0
"""From the start of Redis to the first answer. The bucket is asked once whether it takes writes, for 1.5 s."""


@pytest.fixture
def faulty(tmp_path: Path) -> Iterator[tuple[Cluster, FaultProxy]]:
    with faulty_storage(tmp_path / "s3") as (storage, proxy):

        @contextmanager
        def given(_directory: Path) -> Iterator[ObjectStorage]:
            yield storage

        with ClusterBuilder(tmp_path / "cluster", storage=given).start() as cluster:
            yield cluster, proxy


def post(cluster: Cluster, path: str, body: dict[str, Any]) -> httpx.Response:
    return httpx.post(cluster.url + BASE + path, json=body, timeout=30)


def test_reads_and_writes_go_on_and_the_snapshot_follows(faulty: tuple[Cluster, FaultProxy]) -> None:
    cluster, proxy = faulty
    made = post(cluster, "", {"name": "kept"}).json()["id"]
    record = {"ids": ["a"], "embeddings": [[1.0, 2.0]]}
    assert post(cluster, f"/{made}/add", record).status_code == 201
    proxy.read_only = True
    cluster.redis.kill()
    cluster.redis.start()
    began_s = time.monotonic()
    wait_until(lambda: post(cluster, f"/{made}/get", {"ids": ["a"]}).status_code == 200, "a read", 60)
    wait_until(lambda: post(cluster, f"/{made}/upsert", record | {"ids": ["b"]}).status_code == 200, "a write", 60)
    assert time.monotonic() - began_s < OUTAGE_S_MAX
    refused = post(cluster, "", {"name": "refused"})
    assert refused.status_code == 503
    assert "bject storage" in refused.json()["message"]
    assert proxy.refused

    cluster.restart("logservice-1")  # another one needs no bucket that takes writes, either
    assert post(cluster, f"/{made}/upsert", record | {"ids": ["c"]}).status_code == 200

    proxy.read_only = False
    wait_until(lambda: post(cluster, "", {"name": "later"}).status_code == 200, "a creation", 60)
    wait_until(lambda: b'"event":"catalog_snapshot"' in _log_since(cluster), "a snapshot", 60)
    got = post(cluster, f"/{made}/get", {}).json()["ids"]
    assert sorted(got) == ["a", "b", "c"]


def _log_since(cluster: Cluster) -> bytes:
    """The log service's log since its last start."""
    return cluster.process("logservice-1").log_path.read_bytes().rpartition(b'"event":"leading"')[2]
