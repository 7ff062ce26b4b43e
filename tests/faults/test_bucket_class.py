"""Writes of the durability class `bucket` over real processes: Redis is lost with its disk, and they are there."""

import asyncio
import shutil
import uuid
from pathlib import Path

import httpx
import pytest

from tests.cluster.harness import ClusterBuilder
from tests.cluster.waiting import wait_until

pytestmark = pytest.mark.timeout(180)

COLLECTIONS = "/api/v2/tenants/default_tenant/databases/default_database/collections"
NOT_COMPACTED = {
    "POLYCHROME_LOGSERVICE_COMPACT_QUIET_S": "600",
    "POLYCHROME_LOGSERVICE_COMPACT_AGE_S": "600",
}
"""Nothing is in a manifest before Redis is lost."""

WRITERS = 4
WRITES = 6


async def written(client: httpx.AsyncClient, url: str, writer: int) -> list[str]:
    """The ids that a writer was answered to be in the bucket. Between them it writes some that are not."""
    found: list[str] = []
    for number in range(WRITES):
        for durability in ("bucket", "disk"):
            id_ = f"{durability}-{writer}-{number}"
            body = {"ids": [id_], "embeddings": [[float(writer), float(number)]], "durability": durability}
            answer = await client.post(f"{url}/add", json=body)
            assert (answer.status_code, answer.headers["x-polychrome-durability"]) == (201, durability)
            if durability == "bucket":
                found.append(id_)
    return found


async def test_what_was_acknowledged_in_the_bucket_outlives_redis_and_its_disk(tmp_path: Path) -> None:
    with ClusterBuilder(tmp_path, shards_default=2, environ=NOT_COMPACTED).start() as cluster:
        cluster.allow_in_logs(r"stored_data_damaged|log_range_missing|worker_failed|redis|unavailable|Unavailable")
        async with httpx.AsyncClient(base_url=cluster.url, timeout=60.0) as client:
            made = await client.post(COLLECTIONS, json={"name": f"secured-{uuid.uuid4()}"})
            url = f"{COLLECTIONS}/{made.json()['id']}"
            acknowledged = await asyncio.gather(*(written(client, url, writer) for writer in range(WRITERS)))
            cluster.redis.kill()
            shutil.rmtree(cluster.directory / "redis" / "appendonlydir")
            cluster.redis.start()

            def restored() -> bool:
                answer = httpx.get(f"{cluster.url}{url}/count", timeout=10.0)
                return answer.status_code == 200

            await asyncio.to_thread(wait_until, restored, "a restored collection", 60.0)
            found = set((await client.post(f"{url}/get", json={"limit": 1000})).json()["ids"])
        assert {id_ for ids in acknowledged for id_ in ids} <= found
