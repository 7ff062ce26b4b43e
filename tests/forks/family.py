"""A collection, its forks and theirs, each with a model of its own."""

from __future__ import annotations

import dataclasses
from functools import partial
from typing import Any

from frontend.collections.forking import Forker
from logservice.garbage.collector import GarbageCollector
from logservice.garbage.plan import CatalogView, Periods
from logservice.leader import pointers_of_all
from shared.catalog import Collection, Database
from shared.catalog.collector import Collector
from shared.catalog.forking import Forking
from shared.history.past_log import PastLog
from shared.log.forks import Forks
from shared.log.lifecycle import Lifecycle
from shared.objects.keys import collection_of
from shared.process.clock import SystemClock
from tests.compactor.conftest import Records, Shop

FORKS_MAX = 5


class Family:
    """What forks and collects, around a shop."""

    def __init__(self, shop: Shop) -> None:
        self.shop = shop
        self.forking = Forking(shop.redis, shop.keys, shop.catalog.collections)
        self.forks = Forks(shop.redis, shop.keys)
        self.lifecycle = Lifecycle(shop.redis, shop.keys)

    def forker(self, **parts: Any) -> Forker:
        given: dict[str, Any] = {"log": self.shop.log, "objects": self.shop.objects, "forks_max": FORKS_MAX} | parts
        return Forker(
            self.shop.catalog.collections, self.forking, self.forks, given["log"],
            PastLog(given["log"], given["objects"]), given["objects"], SystemClock(), given["forks_max"], "test",
        )  # fmt: skip

    async def db(self) -> Database:
        return await self.shop.db()

    async def fork(self, shop: Shop, name: str, forker: Forker | None = None) -> Shop:
        model = dict(shop.model)
        forked = await (forker or self.forker()).fork(await self.db(), shop.collection.id, name)
        return self.member(shop, forked, model)

    def member(self, origin: Shop, forked: Collection, model: Records | None = None) -> Shop:
        """A fork of `origin` with its own model: what the origin's was."""
        return dataclasses.replace(origin, collection=forked, model=dict(origin.model if model is None else model))

    async def delete(self, shop: Shop) -> None:
        await shop.refresh()
        assert await self.shop.catalog.collections.delete(await self.db(), shop.collection.name)

    async def collect(self, garbage: GarbageCollector | None = None, **options: Any) -> None:
        """Two rounds: what the first condemns the second deletes."""
        catalog = self.shop.catalog
        collector = Collector(self.shop.redis, self.shop.keys, catalog, **options)
        await collector.collect_deleted()
        await collector.collect_orphans()
        garbage = garbage or GarbageCollector(self.shop.objects, SystemClock(), Periods(-1.0, -1.0))
        for _ in range(2):
            collections = [one async for one in catalog.collections.all()]
            lineage = {one.id: one.ancestors for one in collections}
            view = CatalogView(pointers_of_all(collections), await collector.graves(), {}, lineage)
            cluster = await catalog.mark.read()
            assert cluster is not None
            collected = await garbage.collect(view, partial(catalog.mark.require_same, cluster))
            await collector.forget(collected.forgotten)
            await collector.forget_families({one.root for one in collections})

    async def owners(self) -> set[str]:
        """Collections of which the bucket has something."""
        return {one async for info in self.shop.objects.list("") if (one := collection_of(info.key))}

    async def keys_below(self, collection_id: str) -> list[str]:
        return [info.key async for info in self.shop.objects.list(f"{collection_id}/")]
