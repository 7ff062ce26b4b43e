"""What was written is counted exactly, whatever is killed: over real processes."""

from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.cluster.harness import Cluster, ClusterBuilder
from tests.cluster.waiting import wait_until

pytestmark = pytest.mark.timeout(300)
API = "/api/v2/tenants/default_tenant/databases/default_database/collections"
WRITES = 30
COUNTED_S_MAX = 60.0


def used(cluster: Cluster) -> dict[str, Any]:
    answer = httpx.get(f"{cluster.url}/polychrome/v1/usage", timeout=30)
    totals = [each for each in answer.raise_for_status().json()["totals"] if each["tenant"] == "default_tenant"]
    return totals[0] if totals else {}


def test_records_that_were_acknowledged_are_counted_once_whatever_is_killed(tmp_path: Path) -> None:
    with ClusterBuilder(tmp_path, frontends=1, log_services=2).start() as cluster:
        with httpx.Client(base_url=cluster.url, timeout=30) as client:
            made = client.post(API, json={"name": "counted"}).raise_for_status().json()
            for number in range(WRITES):
                body = {"ids": [f"id{number}"], "embeddings": [[float(number), 1.0]]}
                client.post(f"{API}/{made['id']}/upsert", json=body).raise_for_status()
        cluster.restart("frontend-1")  # kill -9, long before its next flush
        for log_service in cluster.role("logservice"):
            cluster.restart(log_service.spec.name)  # the leader is among them
        cluster.restart("compactor-1")
        wait_until(
            lambda: used(cluster).get("records_written", 0) >= WRITES, "all that was written counted", COUNTED_S_MAX
        )
        assert used(cluster)["records_written"] == WRITES
