"""Promises 1 to 4 under `kill -9`: what was acknowledged is there, nothing else is, and reads go on."""

import asyncio
from collections.abc import Iterator

import pytest

from compactor.checkpoints import Step
from tests.cluster.harness import Cluster
from tests.faults.kills import ROLES, Killer
from tests.faults.scenario import fault_cluster, run_scenario

pytestmark = pytest.mark.timeout(300)


@pytest.fixture(scope="module")
def kill_cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """Two shards: a batch is there wholly or not at all across both."""
    with fault_cluster(tmp_path_factory.mktemp("faults"), shards=2) as cluster:
        yield cluster


async def test_every_process_can_die_while_writes_and_reads_go_on(kill_cluster: Cluster) -> None:
    async def disturb(killer: Killer) -> None:
        for role in ROLES:
            await killer.one(role)
            await asyncio.sleep(0.3)
        await killer.every_queryworker()

    workload, _ = await run_scenario(kill_cluster, 1, disturb)
    assert workload.outages.reads > 100


async def test_redis_can_die_and_come_back_with_all_that_was_acknowledged(kill_cluster: Cluster) -> None:
    async def disturb(killer: Killer) -> None:
        for _ in range(3):
            await asyncio.sleep(0.7)
            await killer.redis()
        await asyncio.sleep(0.7)

    await run_scenario(kill_cluster, 2, disturb)


async def test_a_compactor_can_die_at_any_step_of_its_job(kill_cluster: Cluster) -> None:
    async def disturb(killer: Killer) -> None:
        not_reached = [step for step in Step if not await killer.compactor_at(step)]
        assert not not_reached

    await run_scenario(kill_cluster, 3, disturb)
