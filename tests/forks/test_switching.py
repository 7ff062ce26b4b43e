"""Forks of a collection that gets other shards in the middle."""

from __future__ import annotations

import dataclasses
import random

import pytest

from tests.compactor.test_rebuild import churn, compact_all, everything, rebuild, want


@pytest.mark.parametrize("compacted", [False, True])
async def test_a_fork_begins_anew_when_the_shards_are_switched_before_the_tail_is_copied(shop, family, compacted):
    rng = random.Random(21)
    await churn(shop, rng, 2)
    if compacted:
        await compact_all(shop, shop.collection.layout)
        await churn(shop, rng, 2)

    class Switches:
        switched = False

        def __getattr__(self, name):
            return getattr(shop.log, name)

        async def read(self, *args):
            if not self.switched:
                self.switched = True
                await want(shop, 3)
                await rebuild(shop)
            return await shop.log.read(*args)

    forked = await family.forker(log=Switches()).fork(await family.db(), shop.collection.id, "fork")
    assert forked.shards == 3
    assert await everything(dataclasses.replace(shop, collection=forked)) == shop.model
