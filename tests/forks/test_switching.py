"""Forks of a collection whose shards are switched meanwhile, commands that arrive twice, deletions at once."""

from __future__ import annotations

import dataclasses
import random
from typing import Any

import pytest

from shared.errors import NotFound
from shared.log.forks import Forks
from shared.log.state import ShardRead
from shared.records.model import Op
from tests.compactor.conftest import Shop
from tests.compactor.steps import row
from tests.compactor.test_rebuild import churn, compact_all, everything, rebuild, want
from tests.forks.family import Family


@pytest.mark.parametrize("compacted", [False, True])
async def test_a_fork_begins_anew_when_the_shards_are_switched_before_the_tail_is_copied(
    shop: Shop, family: Family, compacted: bool
) -> None:
    rng = random.Random(21)
    await churn(shop, rng, 2)
    if compacted:
        await compact_all(shop, shop.collection.layout)
        await churn(shop, rng, 2)

    class Switches:
        switched = False

        def __getattr__(self, name: str) -> Any:
            return getattr(shop.log, name)

        async def read(self, *args: Any, **options: Any) -> ShardRead:
            if not self.switched:
                self.switched = True
                await want(shop, 3)
                await rebuild(shop)
            return await shop.log.read(*args, **options)

    forked = await family.forker(log=Switches()).fork(await family.db(), shop.collection.id, "fork")
    assert forked.shards == 3
    assert await everything(dataclasses.replace(shop, collection=forked)) == shop.model


async def test_an_opening_that_arrives_once_more_finds_the_fork_as_it_is_by_then(
    shop: Shop, family: Family, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its connection was given up, and what was sent over it came late: positions must not be handed out again."""
    rng = random.Random(22)
    await churn(shop, rng, 2)
    opened = []
    open_ = Forks.open

    async def noting(self: Forks, *args: Any, **kwargs: Any) -> None:
        opened.append((args, kwargs))
        await open_(self, *args, **kwargs)

    monkeypatch.setattr(Forks, "open", noting)
    fork = await family.fork(shop, "fork")
    await fork.write(Op.UPSERT, {"one": row(rng)})
    [(args, kwargs)] = opened
    await open_(family.forks, *args, **kwargs)
    await fork.write(Op.UPSERT, {"two": row(rng)})
    assert await everything(fork) == fork.model


async def test_a_fork_that_is_deleted_at_once_is_not_made_again(
    shop: Shop, family: Family, monkeypatch: pytest.MonkeyPatch
) -> None:
    changes = shop.catalog.journal._changes
    count = changes.count

    async def delete() -> None:
        monkeypatch.setattr(changes, "count", count)
        await count()
        await shop.catalog.collections.delete(await family.db(), "fork")

    monkeypatch.setattr(changes, "count", delete)
    with pytest.raises(NotFound):
        await family.fork(shop, "fork")
    assert await shop.catalog.collections.get(await family.db(), "fork") is None
    assert await family.forking.count(shop.collection) == 1
