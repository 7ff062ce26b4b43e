"""Conditional transactions are serialisable, and strictly so, whatever is killed and while shards are added."""

import asyncio
import random
from collections.abc import Awaitable, Callable, Iterator

import pytest

from tests.cluster.harness import Cluster
from tests.faults.kills import ROLES, Killer
from tests.faults.scenario import fault_cluster
from tests.faults.transacting import Transactions

pytestmark = pytest.mark.timeout(300)


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    with fault_cluster(tmp_path_factory.mktemp("transactions"), shards=1) as running:
        yield running


async def run(cluster: Cluster, seed: int, disturb: Callable[[Transactions, Killer], Awaitable[None]]) -> None:
    async with Transactions(cluster.urls, seed) as clients:
        work = asyncio.create_task(clients.run())
        disturbing = asyncio.ensure_future(disturb(clients, Killer(cluster, random.Random(seed))))
        await asyncio.wait((work, disturbing), return_when=asyncio.FIRST_COMPLETED)
        clients.stop()
        await disturbing
        await work
        await asyncio.to_thread(cluster.wait_ready)
        await clients.check()
        assert sum(bool(one.writes) for one in clients.certain) > 50
        assert clients.conflicts > 5


async def test_transactions_are_serialisable_while_every_process_dies(cluster: Cluster) -> None:
    async def disturb(_clients: Transactions, killer: Killer) -> None:
        for role in ROLES:
            await killer.one(role)
            await asyncio.sleep(0.3)
        await killer.every_queryworker()
        await asyncio.sleep(0.3)

    await run(cluster, 1, disturb)


async def test_transactions_are_serialisable_while_redis_dies(cluster: Cluster) -> None:
    async def disturb(_clients: Transactions, killer: Killer) -> None:
        for _ in range(3):
            await asyncio.sleep(0.7)
            await killer.redis()
        await asyncio.sleep(1)

    await run(cluster, 2, disturb)


async def test_transactions_are_serialisable_while_shards_are_added(cluster: Cluster) -> None:
    async def disturb(clients: Transactions, _killer: Killer) -> None:
        for shards in (3, 5):
            await asyncio.sleep(0.5)
            await clients.ask_for_shards(shards)
            await clients.wait_for_shards(shards, cluster)
        await asyncio.sleep(0.5)

    await run(cluster, 3, disturb)
