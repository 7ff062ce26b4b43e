"""Forks, made by the frontend's own code on a real log, a directory and real compactions."""

from __future__ import annotations

import asyncio
import dataclasses
import random
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from compactor.compaction import Ending
from shared.catalog.families import Families
from shared.cluster.placement import Layout
from shared.errors import AlreadyExists, Corrupt, Gone, QuotaExceeded
from shared.log.state import ShardRead
from shared.objects.port import ObjectStore
from shared.records.model import Op
from tests.compactor.conftest import Shop
from tests.compactor.steps import row
from tests.compactor.test_rebuild import churn, compact_all, everything, rebuild, want
from tests.forks.family import FORKS_MAX, Family
from tests.shared.log.appending import make_collection


@pytest.mark.parametrize("shards", [1, 3])
async def test_a_fork_has_what_its_origin_had_and_both_go_their_own_ways(
    shop: Shop, family: Family, shards: int
) -> None:
    rng = random.Random(shards)
    shop.collection = await make_collection(shop.catalog, await family.db(), "several", shards=shards)
    await churn(shop, rng, 3)
    await compact_all(shop, shop.collection.layout)
    await churn(shop, rng, 2)
    await shop.refresh()
    fork = await family.fork(shop, "fork")
    assert fork.collection.dimension == shop.collection.dimension
    assert fork.collection.appended == shop.collection.appended
    assert (fork.collection.head, fork.collection.keys) == (shop.collection.head, shop.collection.keys)
    await churn(shop, rng, 2)
    await churn(fork, rng, 2)
    assert await everything(fork) == fork.model
    assert await everything(shop) == shop.model
    assert fork.model != shop.model


async def test_nothing_of_the_origins_records_is_moved(shop: Shop, family: Family) -> None:
    rng = random.Random(2)
    await churn(shop, rng, 3)
    await compact_all(shop, shop.collection.layout)
    fork = await family.fork(shop, "fork")
    [manifest] = await family.keys_below(fork.collection.id)
    assert manifest.endswith("/manifests/00000000000000000001.json")
    assert (await fork.published()).segments == (await shop.published()).segments


async def test_a_collection_without_records_can_be_forked(shop: Shop, family: Family) -> None:
    fork = await family.fork(shop, "fork")
    assert (fork.collection.dimension, fork.collection.appended, fork.collection.version) == (None, 0, 0)
    await churn(fork, random.Random(3), 1)
    assert await everything(fork) == fork.model


async def test_a_fork_of_a_collection_with_later_shards_numbers_its_own_from_0(shop: Shop, family: Family) -> None:
    rng = random.Random(4)
    await churn(shop, rng, 2)
    await want(shop, 3)
    await rebuild(shop)
    assert shop.collection.layout == Layout(1, 3)
    await churn(shop, rng, 1)
    fork = await family.fork(shop, "fork")
    assert fork.collection.layout == Layout(0, 3)
    await churn(fork, rng, 1)
    assert await everything(fork) == fork.model


async def test_a_fork_made_during_a_rebuild_has_the_layout_of_before(shop: Shop, family: Family) -> None:
    rng = random.Random(5)
    await churn(shop, rng, 2)
    await compact_all(shop, shop.collection.layout)
    await want(shop, 3)
    await shop.rebuilder().step(shop.collection.id)
    await churn(shop, rng, 1)
    fork = await family.fork(shop, "fork")
    assert fork.collection.layout == Layout(0, 1)
    await rebuild(shop)
    assert await everything(fork) == fork.model
    assert await everything(shop) == shop.model


async def test_a_fork_can_get_more_shards_than_its_origin(shop: Shop, family: Family) -> None:
    rng = random.Random(16)
    await churn(shop, rng, 3)
    await compact_all(shop, shop.collection.layout)
    fork = await family.fork(shop, "fork")
    await churn(fork, rng, 1)
    await want(fork, 3)
    await rebuild(fork)
    await family.collect()
    assert fork.collection.layout == Layout(1, 3)
    assert await everything(fork) == fork.model
    assert await everything(shop) == shop.model


async def test_the_name_is_taken(shop: Shop, family: Family) -> None:
    with pytest.raises(AlreadyExists, match=r"Collection \[shop\] already exists"):
        await family.fork(shop, "shop")
    assert await family.forking.count(shop.collection) == 0


async def test_of_two_forks_under_one_name_one_is_made_and_nothing_is_left_of_the_other(
    shop: Shop, family: Family
) -> None:
    await churn(shop, random.Random(6), 2)
    await compact_all(shop, shop.collection.layout)
    both = await asyncio.gather(*(family.fork(shop, "fork") for _ in range(2)), return_exceptions=True)
    assert sorted(type(one).__name__ for one in both) == ["AlreadyExists", "Shop"]
    await shop.refresh()
    assert await family.forking.count(shop.collection) == 1
    [fork] = [one for one in both if isinstance(one, Shop)]
    await family.collect()
    assert await family.owners() == {shop.collection.id, fork.collection.id}


async def test_every_fork_of_the_family_counts_for_all_its_members_deleted_or_not(shop: Shop, family: Family) -> None:
    forks = [await family.fork(shop, "a")]
    forks.append(await family.fork(forks[0], "b"))
    await family.delete(forks[0])
    forks.append(await family.fork(forks[1], "c"))
    for member in (shop, *forks):
        assert await family.forking.count(member.collection) == 3
    assert forks[2].collection.ancestors == (shop.collection.id, forks[0].collection.id, forks[1].collection.id)


async def test_a_family_makes_so_many_forks_and_no_more(shop: Shop, family: Family) -> None:
    for number in range(FORKS_MAX):
        await family.fork(shop, f"fork{number}")
    message = (
        "'Number of forks' exceeded quota limit for action 'Fork Collection': current usage of 6 exceeds limit of 5"
    )
    with pytest.raises(QuotaExceeded, match=f"Quota exceeded: {message}"):
        await family.fork(shop, "one too many")
    other = await make_collection(shop.catalog, await family.db(), "other")
    await family.forker().fork(await family.db(), other.id, "another family")


async def test_deleted_collections_cannot_be_forked(shop: Shop, family: Family) -> None:
    await family.delete(shop)
    with pytest.raises(Gone):
        await family.fork(shop, "fork")


async def test_segments_stay_as_long_as_a_fork_names_them(shop: Shop, family: Family) -> None:
    rng = random.Random(7)
    await churn(shop, rng, 2)
    await compact_all(shop, shop.collection.layout)
    child = await family.fork(shop, "child")
    grandchild = await family.fork(child, "grandchild")
    await family.delete(shop)
    await family.collect()
    assert not [key for key in await family.keys_below(shop.collection.id) if "manifests" in key]
    await family.delete(child)
    await family.collect()
    assert await everything(grandchild) == grandchild.model
    await churn(grandchild, rng, 3, rows=300)  # enough to rewrite what came from the other one
    assert await everything(grandchild) == grandchild.model
    await family.collect()
    assert await everything(grandchild) == grandchild.model
    await family.delete(grandchild)
    await family.collect()
    await family.collect()
    assert await family.owners() == set()
    assert await Families(shop.redis, shop.keys).every() == {}


async def test_the_origin_goes_on_when_its_fork_is_deleted(shop: Shop, family: Family) -> None:
    rng = random.Random(8)
    await churn(shop, rng, 2)
    await compact_all(shop, shop.collection.layout)
    fork = await family.fork(shop, "fork")
    await family.delete(fork)
    await family.collect()
    assert await everything(shop) == shop.model
    assert await family.keys_below(fork.collection.id) == []


async def test_segments_of_ancestors_stay_where_a_forks_manifest_cannot_be_read(shop: Shop, family: Family) -> None:
    rng = random.Random(9)
    await churn(shop, rng, 2)
    await compact_all(shop, shop.collection.layout)
    child = await family.fork(shop, "child")
    grandchild = await family.fork(child, "grandchild")
    [key] = await family.keys_below(grandchild.collection.id)
    whole = await shop.objects.get(key)
    await shop.objects.put(key, b"{")
    await family.delete(shop)
    await family.delete(child)
    await family.collect()
    await shop.objects.put(key, whole)
    assert await everything(grandchild) == grandchild.model


class Between:
    """An object store that lets a test act when the fork's first manifest has just been created, or is about to be."""

    def __init__(self, objects: ObjectStore, when: str, act: Callable[[], Awaitable[None]]) -> None:
        self._objects, self._when, self._act = objects, when, act

    def __getattr__(self, name: str) -> Any:
        return getattr(self._objects, name)

    async def create(self, key: str, data: bytes) -> bool:
        when, self._when = self._when, "done"
        if when == "before":
            await self._act()
        created = await self._objects.create(key, data)
        if when == "after":
            await self._act()
        return created


@pytest.mark.parametrize("trimmed", [False, True])
@pytest.mark.parametrize("when", ["before", "after"])
async def test_a_fork_begins_anew_when_its_origin_is_compacted_in_the_middle(
    shop: Shop, family: Family, when: str, trimmed: bool
) -> None:
    rng = random.Random(10)
    await churn(shop, rng, 2)
    await compact_all(shop, shop.collection.layout)
    await churn(shop, rng, 2, rows=200)

    async def compact_and_collect() -> None:
        assert await shop.compactor().compact(shop.collection.id, 0) is Ending.PUBLISHED
        if trimmed:
            await trim(shop)
        await family.collect()

    objects = Between(shop.objects, when, compact_and_collect)
    fork = await family.fork(shop, "fork", family.forker(objects=objects))
    await family.collect()
    assert await family.forking.count(fork.collection) == 1
    assert await everything(fork) == fork.model


class BeforeReading(Between):
    """An object store that lets a test act when a manifest is about to be read for the first time."""

    async def get(self, key: str) -> bytes:
        when, self._when = self._when, "done"
        if when == "reading":
            await self._act()
        return await self._objects.get(key)


async def test_a_fork_begins_anew_when_its_origins_manifest_is_replaced_and_collected_before_it_is_read(
    shop: Shop, family: Family
) -> None:
    rng = random.Random(11)
    await churn(shop, rng, 2)
    await compact_all(shop, shop.collection.layout)
    await churn(shop, rng, 2)

    async def replace() -> None:
        replaced = (await shop.published()).key
        assert await shop.compactor().compact(shop.collection.id, 0) is Ending.PUBLISHED
        await family.collect()
        assert replaced not in [info.key async for info in shop.objects.list(shop.collection.id)]

    fork = await family.fork(shop, "fork", family.forker(objects=BeforeReading(shop.objects, "reading", replace)))
    assert await family.forking.count(fork.collection) == 1
    assert await everything(fork) == fork.model


async def test_a_fork_of_a_damaged_origin_is_refused(shop: Shop, family: Family) -> None:
    await churn(shop, random.Random(12), 2)
    await compact_all(shop, shop.collection.layout)
    await shop.objects.put((await shop.published()).key, b"{")
    with pytest.raises(Corrupt):
        await family.fork(shop, "fork")
    assert await family.forking.count(shop.collection) == 0


async def trim(shop: Shop) -> None:
    pointer = (await shop.state()).pointer
    assert pointer is not None
    await shop.log.trim(shop.collection.id, 0, pointer, 0)


@pytest.mark.parametrize("written_behind", [False, True])
async def test_a_fork_begins_anew_when_the_tail_is_trimmed_while_it_is_copied(
    shop: Shop, family: Family, monkeypatch: pytest.MonkeyPatch, written_behind: bool
) -> None:
    rng = random.Random(15)
    await churn(shop, rng, 4)
    monkeypatch.setattr("shared.log.tails.PAGE_BYTES", 1)

    class Trims:
        reads = 0

        def __getattr__(self, name: str) -> Any:
            return getattr(shop.log, name)

        async def read(self, *args: Any, **options: Any) -> ShardRead:
            self.reads += 1
            if self.reads == 2:
                await compact_all(shop, shop.collection.layout)
                await trim(shop)
                if written_behind:
                    await churn(shop, rng, 1)
            return await shop.log.read(*args, **options)

    log = Trims()
    forked = await family.forker(log=log).fork(await family.db(), shop.collection.id, "fork")
    assert await everything(dataclasses.replace(shop, collection=forked)) == shop.model


async def test_a_fork_that_waits_is_not_collected_from_under_its_maker(shop: Shop, family: Family) -> None:
    """Whatever rounds come between the manifest and the row."""
    rng = random.Random(11)
    await churn(shop, rng, 2)
    await compact_all(shop, shop.collection.layout)

    class Slow:
        def __getattr__(self, name: str) -> Any:
            return getattr(shop.log, name)

        async def read(self, *args: Any, **options: Any) -> ShardRead:
            await churn(shop, rng, 2, rows=200)
            await compact_all(shop, shop.collection.layout)
            await family.collect()
            return await shop.log.read(*args, **options)

    await shop.write(Op.UPSERT, {"late": row(rng)})
    model = dict(shop.model)
    forked = await family.forker(log=Slow()).fork(await family.db(), shop.collection.id, "fork")
    assert await everything(dataclasses.replace(shop, collection=forked)) == model


async def test_a_fork_is_a_snapshot_of_one_moment_while_others_write(shop: Shop, family: Family) -> None:
    """Each batch writes the same number into every shard: a fork has one number in all of them."""
    shop.collection = await make_collection(shop.catalog, await family.db(), "several", shards=4)
    ids = [f"id{number}" for number in range(40)]
    stop, acknowledged = asyncio.Event(), [0]

    async def write() -> None:
        number = 0
        while not stop.is_set():
            number += 1
            await shop.write(Op.UPSERT, {one: ((0.0,) * 4, str(number), None, None) for one in ids})
            acknowledged[0] = number

    writing = asyncio.create_task(write())
    for number in range(4):
        await asyncio.sleep(0.02)
        known = acknowledged[0]
        fork = await family.fork(shop, f"fork{number}")
        records = await everything(fork)
        seen = {record[1] for record in records.values()}
        assert len(seen) <= 1
        assert not known or int(seen.pop() or 0) >= known
    stop.set()
    await writing


@pytest.mark.parametrize("seed", [1, 2])
async def test_a_family_that_forks_writes_compacts_and_dies_agrees_with_plain_dictionaries(
    shop: Shop, family: Family, seed: int
) -> None:
    rng = random.Random(seed)
    shop.collection = await make_collection(shop.catalog, await family.db(), "first", shards=rng.choice([1, 3]))
    members = [shop]
    forker = family.forker(forks_max=100)
    for number in range(30):
        member = rng.choice(members)
        match rng.choice(["fork", "write", "write", "compact", "delete", "collect"]):
            case "fork" if len(members) < 6:
                members.append(await family.fork(member, f"fork{number}", forker))
            case "write":
                await churn(member, rng, 1, rows=rng.choice([5, 40]))
            case "compact":
                await compact_all(member, member.collection.layout)
                for shard in member.collection.layout.numbers:
                    pointer = (await member.state(shard)).pointer
                    if pointer:
                        await shop.log.trim(member.collection.id, shard, pointer, 0)
            case "delete" if len(members) > 2:
                members.remove(member)
                await family.delete(member)
            case "collect":
                await family.collect()
    await family.collect()
    for member in members:
        assert await everything(member) == member.model
