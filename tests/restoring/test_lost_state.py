"""A collection whose state is gone from Redis, and its log, gets a state of one moment, in the epoch that it was in."""

from __future__ import annotations

import asyncio
import random
from typing import Any

import pytest

from frontend.write.bucket_log import BucketLog
from logservice.restoring.recover import Recovery
from shared.catalog.collector import Collector
from shared.cluster.placement import Layout
from shared.errors import Gone, Unavailable
from shared.manifest.roots import RootStore
from tests.restoring.bank import Bank, append_balances


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


async def lose_state_and_log(bank: Bank) -> None:
    streams = [bank.keys.log(bank.collection.id, shard) for shard in bank.collection.layout.numbers]
    await bank.redis.delete(bank.keys.state(bank.collection.id), *streams)


async def lose_everything(bank: Bank) -> None:
    await asyncio.to_thread(bank.server.lose_everything)
    await bank.reconcile()


@pytest.mark.parametrize(("shards", "compacted"), [(1, True), (1, False), (2, True)])
async def test_a_lost_state_and_its_log_go_on_with_the_log_in_the_bucket(
    bank: Bank, shards: int, compacted: bool
) -> None:
    """Writes of the class `bucket` had left it there. So they do after the loss of all of Redis right after it, and
    once a round has ended.
    """
    chance = random.Random(5)
    await bank.found(shards)
    if shards > 1:
        await end_round(bank)
    elif compacted:
        await bank.compact(0)
    for _ in range(3):
        await bank.transfer(chance)
    await BucketLog(bank.log, bank.objects).reach(bank.collection.id, bank.collection.layout)
    await bank.snapshot()
    await lose_state_and_log(bank)
    await recover(bank)
    assert await bank.read() == bank.balances
    bank.become_leader()
    await (end_round(bank) if shards > 1 else bank.compact(0))
    assert await bank.read() == bank.balances

    await bank.transfer(chance)
    await BucketLog(bank.log, bank.objects).reach(bank.collection.id, bank.collection.layout)
    await lose_state_and_log(bank)
    await recover(bank)
    assert await bank.read() == bank.balances
    await lose_everything(bank)
    assert await bank.read() == bank.balances


@pytest.mark.parametrize("streams", ["kept", "lost"])
async def test_a_state_that_is_lost_right_after_a_restoration_has_the_log_that_this_found_in_the_bucket(
    bank: Bank, streams: str
) -> None:
    """The newest root is one with log. One shard was compacted beyond what the other one has in the bucket, and taken
    back to its manifest of before.
    """
    chance = random.Random(6)
    bank.garbage_kept_s = 900.0
    await bank.found(2)
    await end_round(bank)
    await bank.transfer(chance)
    await BucketLog(bank.log, bank.objects).reach(bank.collection.id, bank.collection.layout)
    kept = bank.balances
    await bank.write(kept | {"account-0": kept["account-0"] - 1, "account-1": kept["account-1"] + 1})
    assert await bank.round() == [0, 1]
    await bank.compact(0)
    await lose_everything(bank)
    assert await bank.read() == kept
    await bank.refresh()
    if streams == "lost":
        await lose_state_and_log(bank)
    else:
        await bank.redis.delete(bank.keys.state(bank.collection.id))
    await recover(bank)
    assert await bank.read() == kept


async def test_nobody_uses_a_state_before_its_log_is_back(bank: Bank, monkeypatch: pytest.MonkeyPatch) -> None:
    chance = random.Random(8)
    await bank.found(2)
    await bank.transfer(chance)
    await BucketLog(bank.log, bank.objects).reach(bank.collection.id, bank.collection.layout)
    await lose_state_and_log(bank)

    async def die(*_: object) -> None:
        raise Unavailable("killed here")

    made = bank.collection
    with monkeypatch.context() as patched:
        patched.setattr(bank.images, "put_back", die)
        with pytest.raises(Unavailable):
            await recover(bank)
    with pytest.raises((Gone, Unavailable)):
        await append_balances(bank.log, made, {"account-0": 1})
    with pytest.raises((Gone, Unavailable)):
        await bank.read()
    await recover(bank)
    assert await bank.read() == bank.balances


@pytest.mark.parametrize(("shards", "compacted"), [(2, True), (2, False)])
async def test_log_that_the_restoration_of_a_state_gave_up_does_not_come_back(
    bank: Bank, shards: int, compacted: bool
) -> None:
    """A frontend died when it had put the log of one shard into the bucket. A loss of all of Redis comes before the
    next of such writes.
    """
    chance = random.Random(5)
    await bank.found(shards)
    if compacted:
        await end_round(bank)
    kept = bank.balances if compacted else {}
    for _ in range(3):
        await bank.transfer(chance)
    await BucketLog(bank.log, bank.objects).reach(bank.collection.id, Layout(0, 1))
    await bank.snapshot()
    await lose_state_and_log(bank)
    await recover(bank)
    assert await bank.read() == kept
    await lose_everything(bank)
    assert await bank.read() == kept
