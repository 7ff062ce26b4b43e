"""A collection whose state is gone from Redis, and its log, gets a state of one moment, in the epoch that it was in."""

from __future__ import annotations

import asyncio
import random
from typing import Any

import pytest

from frontend.write.bucket_log import BucketLog
from logservice.restoring.recover import Recovery
from shared.catalog.collector import Collector
from shared.manifest.roots import RootStore
from tests.restoring.bank import Bank


async def end_round(bank: Bank) -> None:
    while shards := await bank.round():
        for shard in shards:
            await bank.compact(shard)
        if (await bank.refresh()).rooted and not (await bank.round()):
            return


async def recover(bank: Bank) -> None:
    """The log service finds that the state is gone, and restores it."""
    cluster = await bank.catalog.mark.read()
    assert cluster is not None
    recovery = Recovery(cluster, bank.images, bank.log, bank.snapshots, bank.objects, bank.clock)
    collector = Collector(bank.redis, bank.keys, bank.catalog)
    assert await collector.repair_database(await bank.database(), recovery.recover) == 1


@pytest.mark.parametrize("lost", ["one stream", "its end", "both streams"])
async def test_a_lost_state_is_that_of_the_root_and_later_manifests_are_not_taken_up_again(
    bank: Bank, lost: str
) -> None:
    chance = random.Random(3)
    await bank.found(2)
    for _ in range(5):
        await bank.transfer(chance)
    await end_round(bank)
    collection = await bank.refresh()
    assert collection.rooted
    rooted = bank.balances
    for _ in range(5):
        await bank.transfer(chance)
    await bank.snapshot()
    assert await bank.round() == [0, 1]
    await bank.compact(0)  # the round ends here: one shard is further than the other
    streams = [bank.keys.log(collection.id, shard) for shard in collection.layout.numbers]
    await bank.write(bank.balances)  # one batch over both shards
    await bank.redis.delete(bank.keys.state(collection.id))
    if lost == "its end":
        newest: Any = await bank.redis.xrevrange(streams[1], count=1)
        await bank.redis.xdel(streams[1], newest[0][0])
    else:
        await bank.redis.delete(*(streams[1:] if lost == "one stream" else streams))

    await recover(bank)
    restored = await bank.refresh()
    assert (restored.epoch, restored.rooted) == (collection.epoch, True)
    assert await bank.read() == rooted
    root = await RootStore(bank.objects).newest(collection.id)
    assert root is not None
    assert root.pointers == list(restored.pointers)

    bank.become_leader()
    bank.history = {1: rooted}
    for _ in range(3):
        await bank.transfer(chance)
        await end_round(bank)
        assert await bank.read() == bank.balances
    await bank.lose_redis()
    assert bank.balances == await bank.read()


async def test_a_lost_state_whose_log_is_there_goes_on_with_it(bank: Bank) -> None:
    chance = random.Random(4)
    await bank.found(2)
    await end_round(bank)
    for _ in range(5):
        await bank.transfer(chance)
    assert await bank.round() == [0, 1]
    await bank.compact(0)
    await bank.write(bank.balances)
    await bank.snapshot()
    await bank.redis.delete(bank.keys.state(bank.collection.id))
    await recover(bank)
    assert await bank.read() == bank.balances
    for _ in range(2):
        await bank.transfer(chance)
        await end_round(bank)
    assert await bank.read() == bank.balances


@pytest.mark.parametrize(("shards", "compacted"), [(1, True), (1, False), (2, True)])
async def test_log_that_the_restoration_of_a_state_gave_up_does_not_come_back(
    bank: Bank, shards: int, compacted: bool
) -> None:
    """Writes of the class `bucket` had left it in the bucket; a loss of all of Redis comes before the next of them."""
    chance = random.Random(5)
    await bank.found(shards)
    if shards > 1:
        await end_round(bank)
    elif compacted:
        await bank.compact(0)
    kept = bank.balances if (await bank.refresh()).pointers[0] else {}
    for _ in range(3):
        await bank.transfer(chance)
    await BucketLog(bank.log, bank.objects).reach(bank.collection.id, bank.collection.layout)
    await bank.snapshot()
    streams = [bank.keys.log(bank.collection.id, shard) for shard in bank.collection.layout.numbers]
    await bank.redis.delete(bank.keys.state(bank.collection.id), *streams)
    await recover(bank)
    assert await bank.read() == kept

    bank.history = {1: kept} if kept else {}
    await asyncio.to_thread(bank.server.lose_everything)
    await bank.reconcile()
    assert await bank.read() == kept
