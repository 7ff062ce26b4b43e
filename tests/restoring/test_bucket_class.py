"""Writes of the durability class `bucket` outlive Redis: what is restored has all of them, and is of one moment."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from frontend.write.bucket_log import BucketLog
from tests.restoring.bank import Bank

LOSSES = 8
STEPS_MAX = 16


class Promises:
    """What was acknowledged with the class, by any of two frontends: the position up to which nothing may be lost."""

    def __init__(self, bank: Bank) -> None:
        self.bank = bank
        self.frontends = [BucketLog(bank.log, bank.objects) for _ in range(2)]
        self.position = 0

    async def transfer(self, chance: random.Random) -> None:
        await self.bank.transfer(chance)
        collection = await self.bank.refresh()
        await chance.choice(self.frontends).reach(collection.id, collection.layout)
        self.position = max(self.bank.history)

    def check(self) -> None:
        """After a loss: the bank goes on from a state that has everything which was promised."""
        assert max(self.bank.history) >= self.position


@pytest.fixture
async def promises(bank: Bank) -> Promises:
    bank.garbage_kept_s = 900.0
    return Promises(bank)


async def step(promises: Promises, chance: random.Random, copies: list[Path]) -> None:
    """Something that one of the processes does, chosen by chance."""
    bank = promises.bank
    match chance.choice(["promise", "promise", "transfer", "transfer", "round", "compact", "trim", "garbage", "copy"]):
        case "promise":
            await promises.transfer(chance)
        case "transfer":
            await bank.transfer(chance)
        case "round":
            await bank.round()
        case "compact":
            collection = await bank.refresh()
            await bank.compact(chance.choice(collection.layout.numbers))
        case "trim":
            await bank.trim()
        case "garbage":
            await bank.collect_garbage()
        case "copy":
            copies.append(bank.copy_redis())


@pytest.mark.parametrize(("seed", "shards"), [(1, 1), (2, 3)])
async def test_nothing_that_was_promised_is_lost_with_redis(
    bank: Bank, promises: Promises, seed: int, shards: int
) -> None:
    chance, copies = random.Random(seed), list[Path]()
    await bank.found(shards)
    for _ in range(LOSSES):
        for _ in range(chance.randint(1, STEPS_MAX)):
            await step(promises, chance, copies)
        if copies and chance.random() < 0.5:
            await bank.go_back(chance.choice(copies))
        else:
            await bank.lose_redis()
        promises.check()


async def test_a_promise_outlives_a_loss_before_anything_was_compacted(bank: Bank, promises: Promises) -> None:
    await bank.found(1)
    await promises.transfer(random.Random(3))
    await bank.lose_redis()
    promises.check()
    assert (await bank.refresh()).dimension == 2


async def test_a_log_that_reaches_further_than_the_bucket_is_kept(bank: Bank, promises: Promises) -> None:
    await bank.found(1)
    await promises.transfer(random.Random(4))
    await bank.transfer(random.Random(5))
    copy, newest = bank.copy_redis(), max(bank.history)
    await bank.go_back(copy)
    assert max(bank.history) == newest


async def test_without_the_class_what_only_redis_had_is_lost(bank: Bank, promises: Promises) -> None:
    """The test of the tests above: the losses are losses."""
    await bank.found(1)
    await bank.transfer(random.Random(6))
    before = max(bank.history)
    await bank.lose_redis()
    assert max(bank.history) != before
    assert promises.position == 0


@pytest.mark.parametrize("compacted", [0, 2])
async def test_a_shard_that_is_held_up_after_a_loss_does_not_cost_the_state_in_a_second_one(
    bank: Bank, promises: Promises, compacted: int
) -> None:
    """The restoration went on with log behind manifests that do not meet, and no round has ended since. All that was
    replaced is older than the retention.
    """
    chance = random.Random(7)
    await bank.found(2)
    await bank.round()
    for _ in range(4):
        await bank.transfer(chance)
    for shard in await bank.round():
        await bank.compact(shard)
    await bank.round()
    for _ in range(4):
        await promises.transfer(chance)
    await bank.lose_redis()
    promises.check()
    bank.garbage_kept_s = 0.0
    for _ in range(compacted):
        await bank.transfer(chance)
        await bank.redis.hdel(bank.keys.state(bank.collection.id), "cut")  # the round was given up
        assert 0 in await bank.round()
        await bank.compact(0)
        await bank.trim()
    for _ in range(3):
        await bank.collect_garbage()
    await bank.lose_redis()
    promises.check()
