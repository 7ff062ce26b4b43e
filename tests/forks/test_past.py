"""Forks of the past: what the origin was as of a position that it has long been compacted beyond."""

from __future__ import annotations

import random
from types import SimpleNamespace
from typing import Any

import pytest

from logservice.trimming.seal import Sealer
from shared.errors import StaleRead
from shared.objects.keys import manifest_key
from tests.compactor.conftest import Records, Shop
from tests.compactor.test_rebuild import churn, compact_all, everything
from tests.forks.family import Family
from tests.shared.log.appending import make_collection


async def compact_and_seal(shop: Shop, *, trim: bool = True) -> None:
    async def of(_collection: str) -> float:
        return 3600.0

    histories: Any = SimpleNamespace(of=of)
    sealer = Sealer(shop.log, shop.objects, histories)
    await compact_all(shop, shop.collection.layout)
    for shard in shop.collection.layout.numbers:
        pointer = (await shop.state(shard)).pointer
        if pointer is not None and trim:
            await shop.log.trim(shop.collection.id, shard, await sealer.seal(shop.collection.id, shard, pointer), 0)


@pytest.mark.parametrize("shards", [1, 3])
async def test_a_fork_of_the_past_is_what_the_origin_was_and_goes_its_own_way(
    shop: Shop, family: Family, shards: int
) -> None:
    rng, past = random.Random(shards), dict[int, Records]()
    shop.collection = await make_collection(shop.catalog, await family.db(), "several", shards=shards)
    for round_ in range(4):
        for _ in range(2):
            await churn(shop, rng, 1)
            await shop.refresh()
            past[shop.collection.head] = dict(shop.model)
        await compact_and_seal(shop, trim=round_ != 1)
    forks = rng.sample(sorted(past), 4)
    for head in forks:
        forked = await family.forker().fork(await family.db(), shop.collection.id, f"as of {head}", head)
        fork = family.member(shop, forked, past[head])
        assert forked.head == head
        assert await everything(fork) == past[head]
        await churn(fork, rng, 1)
        assert await everything(fork) == fork.model
    assert await everything(shop) == shop.model


async def test_a_past_that_is_not_kept_cannot_be_forked_and_leaves_nothing(shop: Shop, family: Family) -> None:
    rng = random.Random(7)
    await churn(shop, rng, 1)
    await shop.refresh()
    early = shop.collection.head
    await churn(shop, rng, 1)
    await compact_and_seal(shop)
    await churn(shop, rng, 1)
    await compact_and_seal(shop)
    await shop.objects.delete([key async for key in _sealed_keys(shop)])
    with pytest.raises(StaleRead):
        await family.forker().fork(await family.db(), shop.collection.id, "early", early)
    assert await shop.catalog.collections.get(await family.db(), "early") is None
    assert await family.forking.count(shop.collection) == 0


async def test_a_manifest_that_is_collected_meanwhile_is_noticed(shop: Shop, family: Family) -> None:
    """Then what the fork's manifest names might be collected, too: the fork is made anew, of the log alone."""
    rng = random.Random(8)
    await churn(shop, rng, 1)
    await shop.refresh()
    head, then = shop.collection.head, dict(shop.model)
    for _ in range(2):
        await compact_and_seal(shop)
        await churn(shop, rng, 1)
    forker: Any = family.forker()
    sow, first = forker._sow, manifest_key(shop.collection.id, 0, 1)

    async def sow_late(*args: Any) -> Any:
        pointer = await sow(*args)
        await shop.objects.delete([first])
        return pointer

    forker._sow = sow_late
    forked = await forker.fork(await family.db(), shop.collection.id, "late", head)
    assert forked.pointers == (None,)
    assert await everything(family.member(shop, forked, then)) == then


async def _sealed_keys(shop: Shop) -> Any:
    async for info in shop.objects.list(f"{shop.collection.id}/0/log/"):
        yield info.key
