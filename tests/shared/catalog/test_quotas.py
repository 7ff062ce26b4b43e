"""A catalog is not filled with names, neither by their number nor on a server that is full."""

from __future__ import annotations

import pytest
from redis.asyncio import Redis

from shared.catalog import Catalog, Database, NewCollection
from shared.catalog.model import DEFAULT_TENANT
from shared.catalog.quotas import CatalogQuotas
from shared.errors import AlreadyExists, QuotaExceeded, StorageFull
from shared.log.log import Log
from shared.redis.client import command
from shared.redis.keys import Keys
from tests.shared.log.appending import FIXED, append, make_collection


@pytest.fixture
def small(redis: Redis, keys: Keys, catalog: Catalog) -> Catalog:
    """A catalog with the default tenant and database, and room for one more of each."""
    return Catalog(redis, keys, catalog.journal, CatalogQuotas(tenants=2, databases=2, collections=2))


def new(name: str) -> NewCollection:
    return NewCollection(name, None, {}, {}, FIXED)


FULL = r"^Quota exceeded: 'Number of .*' exceeded quota limit for action 'Create .*': current usage of 2 exceeds limit "


async def test_a_full_catalog_refuses_one_more_and_takes_it_after_a_deletion(
    small: Catalog, database: Database
) -> None:
    await small.tenants.create("second")
    with pytest.raises(QuotaExceeded, match=FULL):
        await small.tenants.create("third")
    with pytest.raises(AlreadyExists):
        await small.tenants.create("second")
    await small.databases.create(DEFAULT_TENANT, "second")
    with pytest.raises(QuotaExceeded, match=FULL):
        await small.databases.create(DEFAULT_TENANT, "third")
    await small.databases.create("second", "third")
    for name in ("first", "second"):
        await small.collections.create(database, new(name), get_or_create=False)
    with pytest.raises(QuotaExceeded, match=FULL):
        await small.collections.create(database, new("third"), get_or_create=True)
    found, created = await small.collections.create(database, new("second"), get_or_create=True)
    assert (found.name, created) == ("second", False)
    assert await small.collections.delete(database, "first")
    await small.collections.create(database, new("third"), get_or_create=False)
    assert await small.databases.delete(DEFAULT_TENANT, "second")
    await small.databases.create(DEFAULT_TENANT, "third")


async def test_a_refused_collection_leaves_no_state_behind(small: Catalog, database: Database, redis: Redis) -> None:
    for name in ("first", "second"):
        await small.collections.create(database, new(name), get_or_create=False)
    before = await redis.dbsize()
    with pytest.raises(QuotaExceeded):
        await small.collections.create(database, new("third"), get_or_create=False)
    assert await redis.dbsize() == before


async def test_a_server_without_memory_refuses_what_grows_and_takes_what_frees(
    catalog: Catalog, database: Database, redis: Redis, keys: Keys
) -> None:
    collection = await make_collection(catalog, database)
    await catalog.databases.create(DEFAULT_TENANT, "doomed")
    log = Log(redis, keys)
    await append(log, collection, ["a"])
    await command(redis, "CONFIG", "SET", "maxmemory", "1")
    try:
        with pytest.raises(StorageFull):
            await catalog.tenants.create("another")
        with pytest.raises(StorageFull):
            await catalog.tenants.set_resource_name(DEFAULT_TENANT, "name")
        with pytest.raises(StorageFull):
            await catalog.databases.create(DEFAULT_TENANT, "another")
        with pytest.raises(StorageFull):
            await catalog.collections.create(database, new("another"), get_or_create=False)
        with pytest.raises(StorageFull):
            await catalog.collections.update(database, collection, metadata={"a": "x" * 1000})
        await catalog.bootstrap()
        assert await catalog.databases.delete(DEFAULT_TENANT, "doomed")
        assert await catalog.collections.delete(database, collection.name)
    finally:
        await command(redis, "CONFIG", "SET", "maxmemory", "0")
