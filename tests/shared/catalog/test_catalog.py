"""Tenants, databases and collections, on real servers."""

import asyncio
import math
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from redis.asyncio import Redis
from redis.asyncio.client import Pipeline

from shared.catalog import Catalog, Collection, Database, NewCollection
from shared.errors import AlreadyExists, Gone, NotFound
from shared.log.log import Log
from shared.log.state import Pointer
from shared.redis.keys import Keys
from shared.redis.scripts import PIPELINE_MAX
from tests.shared.log.appending import FIXED, append, make_collection

ODD_NAMES = ["t}x{", "ü/ñ %", "a:b", "*"]


def new(name: str) -> NewCollection:
    return NewCollection(name, {"f": 2.0, "i": 2}, {"hnsw": {}}, {"keys": {}}, FIXED)


async def test_the_defaults_are_there_from_the_start(catalog: Catalog, database: Database) -> None:
    await catalog.bootstrap()  # again: no harm
    assert [tenant.name for tenant in await catalog.tenants.all()] == ["default_tenant"]
    assert database.id == "00000000-0000-0000-0000-000000000000"


@pytest.mark.parametrize("name", ODD_NAMES)
async def test_a_tenant_may_have_any_name(catalog: Catalog, name: str) -> None:
    assert await catalog.tenants.get(name) is None
    await catalog.tenants.create(name)
    with pytest.raises(AlreadyExists, match="Tenant "):
        await catalog.tenants.create(name)
    made = await catalog.databases.create(name, "base")
    assert await catalog.databases.get(name, "base") == made
    assert await catalog.databases.get("default_tenant", "base") is None


async def test_a_resource_name_is_set_once_and_belongs_to_one_tenant(catalog: Catalog) -> None:
    await catalog.tenants.create("other")
    assert await catalog.tenants.set_resource_name("other", "res")
    assert await catalog.tenants.set_resource_name("other", "res")
    assert not await catalog.tenants.set_resource_name("other", "different")
    assert not await catalog.tenants.set_resource_name("default_tenant", "res")
    found = await catalog.tenants.find_by_resource_name("res")
    assert found is not None
    assert (found.name, found.resource_name) == ("other", "res")
    assert await catalog.tenants.find_by_resource_name("different") is None
    with pytest.raises(NotFound):
        await catalog.tenants.set_resource_name("nobody", "res")


async def test_databases_are_listed_in_order_of_creation(catalog: Catalog) -> None:
    names = ["zz", "aa", "mm"]
    for name in names:
        await catalog.databases.create("default_tenant", name)
    with pytest.raises(AlreadyExists, match=r"Database \[aa\] already exists"):
        await catalog.databases.create("default_tenant", "aa")
    listed = [one.name for one in await catalog.databases.of_tenant("default_tenant")]
    assert listed == ["default_database", *names]
    assert [one.name for one in await catalog.databases.of_tenant("default_tenant", 2, 1)] == names[:2]
    assert await catalog.databases.of_tenant("default_tenant", 0) == []
    assert await catalog.databases.of_tenant("default_tenant", 5, 99) == []
    assert await catalog.databases.of_tenant("nobody") == []
    with pytest.raises(NotFound):
        await catalog.databases.create("nobody", "base")


async def test_a_collection_is_found_as_it_was_created(catalog: Catalog, database: Database) -> None:
    made, created = await catalog.collections.create(database, new("numbers"), get_or_create=False)
    assert created
    assert made == await catalog.collections.get(database, "numbers")
    assert made == await catalog.collections.get_by_id(database, made.id)
    assert made.metadata == {"f": 2.0, "i": 2}
    assert [type(value) for value in made.metadata.values()] == [float, int]
    assert (made.log_position, made.version, made.dimension, made.head) == (0, 0, None, 1)
    with pytest.raises(AlreadyExists, match=r"Collection \[numbers\] already exists"):
        await catalog.collections.create(database, new("numbers"), get_or_create=False)
    again, created = await catalog.collections.create(database, new("numbers"), get_or_create=True)
    assert (again, created) == (made, False)


async def test_a_collection_belongs_to_its_database(catalog: Catalog, database: Database) -> None:
    made = await make_collection(catalog, database)
    other = await catalog.databases.create("default_tenant", "other")
    assert await catalog.collections.get_by_id(other, made.id) is None
    assert await catalog.collections.get(other, "numbers") is None
    await make_collection(catalog, other)
    assert await catalog.collections.count(database) == await catalog.collections.count(other) == 1


@pytest.mark.parametrize("get_or_create", [False, True])
async def test_of_16_creators_of_one_name_one_wins(
    catalog: Catalog, database: Database, redis: Redis, keys: Keys, get_or_create: bool
) -> None:
    results = await asyncio.gather(
        *(catalog.collections.create(database, new("numbers"), get_or_create) for _ in range(16)),
        return_exceptions=True,
    )
    won = [result for result in results if not isinstance(result, BaseException)]
    assert sum(created for _, created in won) == 1
    assert len({collection.id for collection, _ in won}) == 1
    assert all(isinstance(result, AlreadyExists) for result in results if isinstance(result, BaseException))
    assert len(won) == (16 if get_or_create else 1)
    assert len([key async for key in redis.scan_iter(keys.every_state)]) == 1  # the losers' states are gone


async def test_collections_are_listed_in_order_of_creation(catalog: Catalog, database: Database) -> None:
    names = [f"c{i * 7 % 20:02}" for i in range(20)]
    for name in names:
        await make_collection(catalog, database, name)
    assert await catalog.collections.delete(database, names.pop(3))
    assert [one.name for one in await catalog.collections.of_database(database)] == names
    assert [one.name for one in await catalog.collections.of_database(database, 5, 10)] == names[10:15]
    assert await catalog.collections.of_database(database, 0) == []
    assert await catalog.collections.count(database) == 19


async def test_a_deleted_name_is_free_and_its_successor_another_collection(
    catalog: Catalog, database: Database, redis: Redis, keys: Keys
) -> None:
    log = Log(redis, keys)
    first = await make_collection(catalog, database)
    await append(log, first, ["a"])
    assert await catalog.collections.delete(database, "numbers")
    assert not await catalog.collections.delete(database, "numbers")
    assert await catalog.collections.get(database, "numbers") is None
    second = await make_collection(catalog, database)
    assert second.id != first.id
    assert (second.head, second.dimension) == (1, None)
    with pytest.raises(Gone):
        await append(log, first, ["b"])


async def test_an_update_counts_a_generation_and_a_second_one_from_the_same_row_is_stale(
    catalog: Catalog, database: Database
) -> None:
    made = await make_collection(catalog, database)
    changed = await asyncio.gather(*(catalog.collections.update(database, made, metadata={"n": i}) for i in range(8)))
    assert sum(changed) == 1
    now = await catalog.collections.get(database, "numbers")
    assert now is not None
    assert (now.generation, now.metadata) == (2, {"n": changed.index(True)})
    assert await catalog.collections.update(database, now, name="renamed", metadata=None, configuration={"x": 1})
    renamed = await catalog.collections.get(database, "renamed")
    assert renamed is not None
    assert (renamed.id, renamed.metadata, renamed.configuration, renamed.schema) == (made.id, None, {"x": 1}, {})
    assert await catalog.collections.get(database, "numbers") is None
    assert [one.name for one in await catalog.collections.of_database(database)] == ["renamed"]


async def test_a_taken_name_is_refused_and_ones_own_is_not(catalog: Catalog, database: Database) -> None:
    made = await make_collection(catalog, database, "one")
    await make_collection(catalog, database, "two")
    with pytest.raises(AlreadyExists, match=r"Collection \[two\] already exists"):
        await catalog.collections.update(database, made, name="two")
    assert await catalog.collections.update(database, made, name="one")


async def test_deleting_a_database_takes_its_collections_along(catalog: Catalog, redis: Redis, keys: Keys) -> None:
    log = Log(redis, keys)
    old = await catalog.databases.create("default_tenant", "base")
    made = await make_collection(catalog, old)
    assert await catalog.databases.delete("default_tenant", "base")
    assert not await catalog.databases.delete("default_tenant", "base")
    with pytest.raises(Gone):
        await append(log, made, ["a"])
    with pytest.raises(NotFound):
        await make_collection(catalog, old, "late")  # by a process that still knows the old one
    fresh = await catalog.databases.create("default_tenant", "base")
    assert fresh.key != old.key
    assert await catalog.collections.of_database(fresh) == []
    assert await catalog.collections.of_database(old) == []


async def test_reset_leaves_the_defaults_only(catalog: Catalog, database: Database, redis: Redis, keys: Keys) -> None:
    log = Log(redis, keys)
    await catalog.tenants.create("t}")
    await catalog.tenants.set_resource_name("t}", "res")
    other = await catalog.databases.create("t}", "base")
    made: list[Collection] = [await make_collection(catalog, where) for where in (database, other)]
    await catalog.reset()
    assert [tenant.name for tenant in await catalog.tenants.all()] == ["default_tenant"]
    assert [one.name for one in await catalog.databases.of_tenant("default_tenant")] == ["default_database"]
    assert await catalog.tenants.find_by_resource_name("res") is None
    fresh = await catalog.databases.get("default_tenant", "default_database")
    assert fresh is not None
    assert await catalog.collections.count(fresh) == 0
    for collection in made:
        with pytest.raises(Gone):
            await append(log, collection, ["a"])
    await catalog.tenants.create("t}")
    assert await catalog.databases.of_tenant("t}") == []


async def test_the_compacted_position_and_version_follow_the_pointers(
    catalog: Catalog, database: Database, redis: Redis, keys: Keys
) -> None:
    log = Log(redis, keys)
    made = await make_collection(catalog, database, shards=3)
    await append(log, made, [f"id{i}" for i in range(30)])
    await append(log, made, ["id0"])

    async def now() -> Collection:
        found = await catalog.collections.get_by_id(database, made.id)
        assert found is not None
        return found

    assert (await now()).log_position == 0
    for shard in range(3):
        await log.commit(made.id, shard, None, Pointer(1, "h", 31), 0)
    home = next(shard for shard, position in enumerate((await now()).written) if position == 31)
    assert ((await now()).log_position, (await now()).version) == (30, 3)
    await log.commit(made.id, home, Pointer(1, "h", 31), Pointer(2, "h", 32), 0)
    assert ((await now()).log_position, (await now()).version) == (31, 4)


async def test_every_change_of_the_catalog_is_counted(catalog: Catalog, database: Database) -> None:
    seen = [await catalog.changes.number()]

    async def counted() -> None:
        seen.append(await catalog.changes.number())

    made = await make_collection(catalog, database)
    await counted()
    await catalog.collections.update(database, made, metadata={"a": 1})
    await counted()
    await catalog.collections.delete(database, "numbers")
    await counted()
    await catalog.databases.create("default_tenant", "base")
    await counted()
    await catalog.databases.delete("default_tenant", "base")
    await counted()
    await catalog.reset()
    await counted()
    assert seen == sorted(set(seen))


async def test_listing_takes_few_round_trips_however_many_collections_there_are(
    catalog: Catalog, database: Database, redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    count = 2000
    trips = 0

    def counted(send: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
        def send_counted(*args: Any, **options: Any) -> Awaitable[Any]:
            nonlocal trips
            trips += 1
            return send(*args, **options)

        return send_counted

    limit = asyncio.Semaphore(32)

    async def make(i: int) -> None:
        async with limit:
            await make_collection(catalog, database, f"c{i}")

    await asyncio.gather(*(make(i) for i in range(count)))
    monkeypatch.setattr(redis, "execute_command", counted(redis.execute_command))
    monkeypatch.setattr(Pipeline, "execute", counted(Pipeline.execute))
    listed = await catalog.collections.of_database(database)
    assert len(listed) == count
    assert 0 < trips <= 1 + 2 * math.ceil(count / PIPELINE_MAX)
    trips = 0
    assert await catalog.collections.of_database(database, 10, 1000) == listed[1000:1010]
    assert trips == 3
