"""Forks whose maker dies, is late or is repeated; forks in images of the catalog."""

from __future__ import annotations

import dataclasses
import random
import uuid

import pytest

from frontend.collections.forking import _like
from shared.catalog import NewCollection
from shared.catalog.collector import Collector
from shared.catalog.image import Images
from shared.errors import Gone, NotFound
from shared.log.lifecycle import Lifecycle
from shared.log.state import Entry
from tests.compactor.conftest import Shop
from tests.compactor.test_rebuild import churn, compact_all
from tests.forks.family import FORKS_MAX, Family
from tests.shared.log.appending import make_collection


async def test_a_maker_that_dies_leaves_an_orphan_that_goes_with_all_it_has(shop: Shop, family: Family) -> None:
    await churn(shop, random.Random(12), 2)
    await compact_all(shop, shop.collection.layout)

    class Dies(BaseException):
        pass

    class Log:
        async def read(self, *_: object, **__: object) -> None:
            raise Dies

    await churn(shop, random.Random(13), 1)
    with pytest.raises(Dies):
        await family.forker(log=Log()).fork(await family.db(), shop.collection.id, "fork")
    await shop.refresh()
    assert await family.forking.count(shop.collection) == 1
    await family.collect(orphan_age_s=-1.0)
    assert await family.forking.count(shop.collection) == 0
    assert await family.owners() == {shop.collection.id}
    assert await shop.catalog.collections.get(await family.db(), "fork") is None


async def test_a_row_that_comes_after_its_orphan_was_buried_goes_again(shop: Shop, family: Family) -> None:
    await shop.refresh()
    new = dataclasses.replace(_new(shop), name="fork")
    fork_id = await family.forking.reserve(shop.collection, new, FORKS_MAX)
    await shop.objects.put(f"{fork_id}/0/manifests/{1:020d}.json", b"{}")
    collector = Collector(shop.redis, shop.keys, shop.catalog, orphan_age_s=-1.0)
    await collector.collect_orphans()
    with pytest.raises(NotFound):
        await family.forking.commit(await family.db(), fork_id, new)

    async def never(*_: object) -> bool:
        pytest.fail("a buried collection is not recovered")

    await collector.repair_database(await family.db(), never)
    assert await shop.catalog.collections.get(await family.db(), "fork") is None
    assert await shop.catalog.collections.count(await family.db()) == 1


def _new(shop: Shop) -> NewCollection:
    return _like(shop.collection, "fork")


async def test_a_fork_in_a_database_that_is_deleted_meanwhile_is_given_up(shop: Shop, family: Family) -> None:
    database = await shop.catalog.databases.create("default_tenant", "doomed")
    collection = await make_collection(shop.catalog, database, "origin")

    async def drop() -> None:
        await shop.catalog.databases.delete("default_tenant", "doomed")

    new = dataclasses.replace(_new(shop), ancestors=(collection.id,))
    fork_id = await family.forking.reserve(collection, new, FORKS_MAX)
    await drop()
    with pytest.raises(NotFound):
        await family.forking.commit(database, fork_id, new)
    assert await family.forking.count(collection) == 0


async def test_an_image_of_the_catalog_has_forks_and_families(shop: Shop, family: Family) -> None:
    fork = await family.fork(shop, "fork")
    images = Images(shop.redis, shop.keys, shop.catalog)
    cluster = await shop.catalog.mark.read()
    assert cluster is not None
    image = await images.take(cluster)
    assert image.families == {shop.collection.id: [fork.collection.id]}
    await shop.redis.flushdb()
    for one in image.collections:
        await images.restore_state(one, one.head, 1, one.head, [None])
    await images.restore_rows(image, 1)
    await shop.catalog.mark.open()
    await fork.refresh()
    assert fork.collection.ancestors == (shop.collection.id,)
    assert await family.forking.count(fork.collection) == 1


async def test_repeated_steps_of_a_fork_do_nothing_twice(shop: Shop, family: Family) -> None:
    await churn(shop, random.Random(14), 2)
    await shop.refresh()
    fork_id = await family.forking.reserve(shop.collection, _new(shop), FORKS_MAX)
    read = await shop.log.read(shop.collection.id, 0)
    half = len(read.entries) // 2
    for _ in range(2):
        assert await family.forks.copy(fork_id, 0, 0, read.entries[:half])
    for _ in range(2):
        assert await family.forks.copy(fork_id, 0, 0, read.entries[half:], read.entries[half - 1].id)
    assert not await family.forks.copy(fork_id, 0, 0, read.entries[half:-1])
    copied = await shop.log.read(fork_id, 0)
    assert [_uncopied(entry) for entry in copied.entries] == [_uncopied(entry) for entry in read.entries]
    assert {entry.request_id for entry in copied.entries} == {""}
    assert copied.state.chain == copied.entries[-1].chain != read.state.chain
    assert copied.state.ops_backlog == read.state.ops_backlog
    await Lifecycle(shop.redis, shop.keys).mark_deleted([fork_id])
    with pytest.raises(Gone):
        await family.forks.copy(fork_id, 0, 0, read.entries, str(uuid.uuid4()))


def _uncopied(entry: Entry) -> Entry:
    """The entry without what is a copy's own."""
    return dataclasses.replace(entry, request_id="", chain="", before_chain="")
