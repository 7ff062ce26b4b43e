"""The audit log over real processes: the bucket takes nothing for a while, and a frontend is killed."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from unittest import mock

import httpx
import pytest

from polychrome.audit.prove import AuditReport, prove_audit
from shared.objects.open import open_store
from shared.process.clock import SystemClock
from shared.tenancy.audit import Event
from shared.tenancy.audit_search import AuditQuery, parts_between
from tests.cluster.harness import Cluster, ClusterBuilder
from tests.cluster.stores import ObjectStorage
from tests.cluster.waiting import wait_until
from tests.faults.s3_proxy import FaultProxy, faulty_storage

pytestmark = pytest.mark.timeout(180)

SEAL_S = 0.3
ENVIRON = {"POLYCHROME_FRONTEND_AUDIT": "control", "POLYCHROME_FRONTEND_AUDIT_SEAL_S": str(SEAL_S)}
WITHIN_S = 20 * SEAL_S
"""Time in which what was done is in the bucket, on a slow machine."""


@pytest.fixture(scope="module")
def faulty(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Cluster, FaultProxy]]:
    directory = tmp_path_factory.mktemp("audit")
    with faulty_storage(directory / "s3") as (storage, proxy):

        @contextmanager
        def given(_directory: Path) -> Iterator[ObjectStorage]:
            yield storage

        with ClusterBuilder(directory / "cluster", storage=given, environ=ENVIRON).start() as cluster:
            yield cluster, proxy


def in_bucket(cluster: Cluster) -> tuple[AuditReport, list[Event]]:
    """The proof of the audit logs, and their events."""

    async def read() -> tuple[AuditReport, list[Event]]:
        async with open_store(cluster.objects.url) as objects:
            report = await prove_audit(objects, SystemClock(), lambda _: None)
            parts = [part async for part in parts_between(objects, None, None)]
            found = [entry for part in parts for entry in AuditQuery().found_in(await objects.get(part.key))]
        return report, [entry for entry in found if isinstance(entry, Event)]

    with mock.patch.dict(os.environ, cluster.objects.environ):
        return asyncio.run(read())


def make(cluster: Cluster, name: str) -> int:
    """Asks for a tenant."""
    return httpx.post(f"{cluster.url}/api/v2/tenants", json={"name": name}, timeout=60).status_code


def statuses(cluster: Cluster) -> dict[str, list[int]]:
    """By the name of a tenant that was asked for, the statuses in the log."""
    report, events = in_bucket(cluster)
    assert report.findings == []
    found: dict[str, list[int]] = {}
    for event in events:
        if event.subject:
            found.setdefault(event.subject, []).append(event.status)
    return found


def test_what_was_done_while_the_bucket_took_nothing_is_written_when_it_does(
    faulty: tuple[Cluster, FaultProxy],
) -> None:
    cluster, proxy = faulty
    cluster.allow_in_logs("refused by a test|Unavailable|unavailable")
    assert make(cluster, "before") == 200
    wait_until(lambda: "before" in statuses(cluster), "the first event", WITHIN_S)
    proxy.read_only = True
    refused = make(cluster, "meanwhile")
    assert refused == 503
    time.sleep(3 * SEAL_S)
    assert "meanwhile" not in statuses(cluster)
    proxy.read_only = False
    assert wait_until(lambda: statuses(cluster).get("meanwhile"), "what waited", 4 * WITHIN_S) == [refused]


def test_a_frontend_that_is_killed_takes_the_last_moment_with_it_and_no_more(
    faulty: tuple[Cluster, FaultProxy],
) -> None:
    cluster, _ = faulty
    names = [f"early-{number}" for number in range(5)]
    assert [make(cluster, name) for name in names] == [200] * 5
    wait_until(lambda: set(names) <= set(statuses(cluster)), "the events", WITHIN_S)
    chains = in_bucket(cluster)[0].chains
    make(cluster, "late")
    cluster.restart("frontend-1")
    assert make(cluster, "after") == 200
    wait_until(lambda: "after" in statuses(cluster), "the next chain", WITHIN_S)
    found = statuses(cluster)
    assert all(found[name] == [200] for name in names)
    assert found.get("late", [200]) == [200]
    assert in_bucket(cluster)[0].chains == chains + 1


def test_a_frontend_that_stops_writes_down_everything(faulty: tuple[Cluster, FaultProxy]) -> None:
    cluster, _ = faulty
    (frontend,) = cluster.role("frontend")
    assert make(cluster, "last") == 200
    frontend.send(signal.SIGTERM)
    assert frontend.wait(30)
    assert statuses(cluster)["last"] == [200]
    frontend.start()
    cluster.wait_ready(frontend)
