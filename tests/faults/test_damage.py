"""Damage in the bucket of a running cluster: clients notice nothing, or are told what it is; and a verification beside
a cluster that is written, compacted and cleaned finds nothing wrong.
"""

from __future__ import annotations

import asyncio
import random
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from polychrome.verify.bucket import Sample
from polychrome.verify.commands import Verified, verify
from polychrome.verify.model import Report
from shared.catalog.damage import Damages
from shared.limits import GRAPH_ROWS_MIN
from shared.objects.open import open_store
from shared.redis.client import open_redis
from shared.redis.keys import Keys
from tests.cluster.harness import Cluster, ClusterBuilder
from tests.cluster.waiting import wait_until
from tests.faults.scenario import ENVIRON
from tests.faults.test_forks import GARBAGE
from tests.faults.workload import Workload

pytestmark = pytest.mark.timeout(300)

COLLECTIONS = "/api/v2/tenants/default_tenant/databases/default_database/collections"
WRITTEN_S = 3.0


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    builder = ClusterBuilder(tmp_path_factory.mktemp("damage"), shards_default=2, environ={**ENVIRON, **GARBAGE})
    with builder.start() as running:
        running.allow_in_logs('segment_corrupt|damage_found|compaction_corrupt|load_failed|"code":"damaged"')
        yield running


async def verified(cluster: Cluster) -> Report:
    async with open_store(cluster.objects.url) as objects, open_redis(cluster.redis.url) as redis:
        return await verify(Verified(objects, redis, Keys()), Sample(1.0), cluster.directory)


async def damages(cluster: Cluster) -> set[str]:
    async with open_redis(cluster.redis.url) as redis:
        return await Damages(redis, Keys()).names()


async def test_a_cluster_that_is_written_compacted_and_cleaned_is_whole_at_every_moment(cluster: Cluster) -> None:
    async with Workload(cluster.urls, 5) as workload, asyncio.TaskGroup() as group:
        group.create_task(workload.run())
        loop = asyncio.get_running_loop()
        until_s, reports = loop.time() + WRITTEN_S, list[Report]()
        while loop.time() < until_s:
            reports.append(await verified(cluster))
        workload.stop()
    assert [report.findings for report in reports] == [[]] * len(reports)
    assert len(reports) > 3
    assert reports[-1].counts["entries"] + reports[-1].counts["records"] > 0


def test_damaged_derived_files_are_served_without_and_replaced_and_damaged_records_are_named(cluster: Cluster) -> None:
    with httpx.Client(base_url=cluster.url, timeout=60) as http:

        def post(path: str, body: dict[str, Any]) -> httpx.Response:
            return http.post(f"{COLLECTIONS}{path}", json=body)

        chance = random.Random(3)
        vectors = [[chance.random() for _ in range(4)] for _ in range(GRAPH_ROWS_MIN + 100)]
        ids = [f"id-{number}" for number in range(len(vectors))]
        collection = post("", {"name": "damaged", "metadata": {"polychrome:shards": 1}}).json()["id"]
        post(f"/{collection}/add", {"ids": ids, "embeddings": vectors}).raise_for_status()
        wait_until(lambda: segments_of(cluster, collection), "compacted")

        def answer() -> httpx.Response:
            return post(f"/{collection}/query", {"query_embeddings": vectors[:3], "n_results": 1, "include": []})

        expected = answer().json()["ids"]
        assert expected == [[id_] for id_ in ids[:3]]
        [segment] = segments_of(cluster, collection)
        flip(segment / "graph.hnsw")
        flip(segment / "metadata.index")
        forget_cached(cluster)
        assert answer().json()["ids"] == expected
        wait_until(lambda: segments_of(cluster, collection) != [segment], "rewritten", 60)
        wait_until(lambda: not asyncio.run(damages(cluster)), "cleared", 60)
        assert not asyncio.run(verified(cluster)).damaged

        newest = segments_of(cluster, collection)[-1]
        flip(newest / "records.arrow")
        forget_cached(cluster, compactors=True)
        refused = answer()
        assert refused.status_code == 500
        assert refused.json()["error"] == "InternalError"
        assert refused.json()["message"].startswith("Stored data damaged: shard 0 of collection ")
        assert refused.json()["message"].endswith(f"/segments/{newest.name}/records.arrow")
        assert post(f"/{collection}/add", {"ids": ["more"], "embeddings": [[1, 2, 3, 4]]}).is_success
        report = asyncio.run(verified(cluster))
        assert [finding.name.rpartition("/")[2] for finding in report.findings if finding.current] == ["records.arrow"]
        flip(newest / "records.arrow")
        wait_until(lambda: answer().json()["ids"] == expected, "whole again", 60)


def segments_of(cluster: Cluster, collection: str) -> list[Path]:
    """The segments of the collection's only shard that are whole, oldest first."""
    found = (cluster.directory / "objects" / collection / "0" / "segments").glob("*/records.arrow")
    return sorted(path.parent for path in found if not (path.parent / "condemned").exists())


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def forget_cached(cluster: Cluster, *, compactors: bool = False) -> None:
    """Starts workers, or compactors as well, that have nothing cached."""
    roles = ["queryworker", *(["compactor"] if compactors else [])]
    for process in [process for role in roles for process in cluster.role(role)]:
        process.kill()
        shutil.rmtree(cluster.directory / "scratch" / process.spec.name)
        process.start()
        cluster.wait_ready(process)
