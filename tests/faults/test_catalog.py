"""Acknowledged changes of the catalog survive whatever happens to Redis, and what was deleted stays so (promise 5)."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.append_only_file import cut
from tests.cluster.harness import Cluster
from tests.faults.catalog import run_catalog
from tests.faults.kills import Killer
from tests.faults.losses import SAYS_WHAT_IS_LOST, Losses
from tests.faults.scenario import fault_cluster

pytestmark = pytest.mark.timeout(300)


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    with fault_cluster(tmp_path_factory.mktemp("catalog"), shards=1) as running:
        running.allow_in_logs(SAYS_WHAT_IS_LOST)
        yield running


async def test_the_catalog_survives_redis_lost_cut_and_older(cluster: Cluster) -> None:
    async def disturb(losses: Losses, killer: Killer) -> None:
        await asyncio.sleep(1.0)
        await losses.all_of_redis()
        await asyncio.sleep(1.5)
        await killer.redis(lambda _: losses.copy_redis())
        await asyncio.sleep(1.0)
        await losses.older_redis()
        await asyncio.sleep(1.5)
        await killer.redis(lambda directory: _cut(directory, 5_000))
        await asyncio.sleep(1.5)

    workload = await run_catalog(cluster, 1, disturb)
    assert workload.ledger.acknowledged > 30


def _cut(directory: Path, lost: int) -> None:
    assert cut(directory, lost) > 0


async def test_a_frontend_that_stands_still_or_dies_in_a_loss_acknowledges_nothing_that_is_not_there(
    cluster: Cluster,
) -> None:
    async def disturb(losses: Losses, killer: Killer) -> None:
        await asyncio.sleep(0.5)
        for frontend in cluster.role("frontend"):
            async with losses.paused(frontend):
                await losses.all_of_redis()
                await asyncio.sleep(2.0)
            await asyncio.sleep(1.0)
        await killer.one("frontend")
        await losses.all_of_redis()
        await asyncio.sleep(1.0)

    await run_catalog(cluster, 2, disturb)
