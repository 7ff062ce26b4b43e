"""Promises 1 to 4 while a collection gets more shards, undisturbed and under `kill -9`."""

import asyncio
import json
import random
from collections.abc import Awaitable, Callable, Iterator

import pytest

from compactor.checkpoints import RebuildStep
from tests.cluster.harness import Cluster
from tests.faults.kills import ROLES, Killer
from tests.faults.scenario import fault_cluster, validate
from tests.faults.workload import Workload

pytestmark = pytest.mark.timeout(300)

APPEND_STOP_MS_MAX = 1000


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    with fault_cluster(tmp_path_factory.mktemp("rebuild"), shards=1) as running:
        yield running


async def run(cluster: Cluster, seed: int, disturb: Callable[[Workload, Killer], Awaitable[None]]) -> Workload:
    killer = Killer(cluster, random.Random(seed))
    async with Workload(cluster.urls, seed) as workload:
        work = asyncio.create_task(workload.run())
        disturbing = asyncio.ensure_future(disturb(workload, killer))
        await asyncio.wait((work, disturbing), return_when=asyncio.FIRST_COMPLETED)
        workload.stop()
        await disturbing
        await work
        await validate(killer, workload)
    return workload


async def test_clients_notice_nothing_of_a_rebuild(cluster: Cluster) -> None:
    async def disturb(workload: Workload, _killer: Killer) -> None:
        for shards in (3, 5):
            await asyncio.sleep(1)
            await workload.ask_for_shards(shards)
            await workload.wait_for_shards(shards, cluster)
        await asyncio.sleep(1)

    workload = await run(cluster, 1, disturb)
    assert not workload.write_failures
    assert not workload.outages.failures
    stops = [ms for process in cluster.role("compactor") for ms in stopped_ms(process.log_path.read_text())]
    assert len(stops) == 2
    assert max(stops) < APPEND_STOP_MS_MAX


def stopped_ms(log: str) -> list[int]:
    entries = [json.loads(line) for line in log.splitlines() if '"switched"' in line]
    return [entry["stopped_ms"] for entry in entries if "stopped_ms" in entry]


async def test_every_process_can_die_during_a_rebuild(cluster: Cluster) -> None:
    async def disturb(workload: Workload, killer: Killer) -> None:
        for shards, role in enumerate([*ROLES, "redis"], start=2):
            await asyncio.sleep(0.3)
            await workload.ask_for_shards(shards)
            await asyncio.sleep(0.3)
            await (killer.redis() if role == "redis" else killer.one(role))
            await workload.wait_for_shards(shards, cluster)

    await run(cluster, 2, disturb)


async def test_a_compactor_can_die_at_any_step_of_a_rebuild(cluster: Cluster) -> None:
    async def disturb(workload: Workload, killer: Killer) -> None:
        doomed, spare = cluster.role("compactor")
        not_reached = []
        for shards, step in enumerate(RebuildStep, start=2):
            spare.kill()  # the other one is to take the step
            dying = asyncio.create_task(killer.compactor_at(step, doomed))
            await workload.ask_for_shards(shards)
            not_reached += [] if await dying else [step]
            spare.start()
            await workload.wait_for_shards(shards, cluster)
        assert not not_reached

    await run(cluster, 3, disturb)
