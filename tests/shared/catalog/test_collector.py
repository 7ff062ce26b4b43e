"""What processes leave when they die half-way is completed or collected."""

from collections.abc import AsyncIterator

import pytest
from redis.asyncio import Redis

from shared.catalog import Catalog, Database
from shared.catalog.collector import Collector
from shared.catalog.removal import Removal
from shared.catalog.scripts import CatalogScripts
from shared.errors import Gone
from shared.log.lifecycle import Lifecycle
from shared.log.log import Log
from shared.redis.keys import Keys
from shared.redis.scripts import Argument
from tests.shared.log.appending import FIXED, append, make_collection


@pytest.fixture
async def collector(redis: Redis, keys: Keys, catalog: Catalog) -> Collector:
    return Collector(redis, keys, catalog, orphan_age_s=0.0)


async def unknown(_collection_id: str, _row: dict[str, object]) -> bool:
    """The bucket knows none of them."""
    return False


async def keys_of(redis: Redis, keys: Keys, collection_id: str) -> set[bytes]:
    """Everything of a collection but its remembered requests."""
    found: AsyncIterator[bytes] = redis.scan_iter(f"{keys.prefix}:{{{collection_id}}}:*")
    return {key async for key in found if b":req:" not in key}


async def test_a_deleted_collection_is_collected_whole(
    catalog: Catalog, database: Database, redis: Redis, keys: Keys, collector: Collector
) -> None:
    made = await make_collection(catalog, database, shards=3)
    kept = await make_collection(catalog, database, "kept")
    await append(Log(redis, keys), made, [str(i) for i in range(30)])
    assert len(await keys_of(redis, keys, made.id)) == 4
    await catalog.collections.delete(database, "numbers")
    assert await collector.collect_deleted() == 1
    assert await collector.collect_deleted() == 0
    assert await keys_of(redis, keys, made.id) == set()
    assert await keys_of(redis, keys, kept.id) != set()


async def test_a_deletion_whose_process_died_after_the_commit_is_finished(
    catalog: Catalog, database: Database, redis: Redis, keys: Keys, collector: Collector
) -> None:
    made = await make_collection(catalog, database)
    await CatalogScripts(redis, keys).collections(database.key, "delete", "numbers", made.id)
    await append(Log(redis, keys), made, ["a"])  # not yet marked
    assert await collector.collect_deleted() == 1
    with pytest.raises(Gone):
        await append(Log(redis, keys), made, ["b"])


async def test_a_database_whose_deletion_was_cut_short_is_closed_and_collected(
    catalog: Catalog, redis: Redis, keys: Keys, collector: Collector
) -> None:
    base = await catalog.databases.create("default_tenant", "base")
    made = await make_collection(catalog, base)
    await CatalogScripts(redis, keys).databases("default_tenant", "delete", "base", base.key)
    assert await collector.collect_deleted() == 1
    assert await keys_of(redis, keys, made.id) == set()
    assert await redis.smembers(keys.database_trash("default_tenant")) == set()
    assert await redis.ttl(keys.closed(base.key)) > 0


async def test_a_reset_that_was_cut_short_hides_everything_at_once_and_is_finished(
    catalog: Catalog, database: Database, redis: Redis, keys: Keys, collector: Collector
) -> None:
    made = await make_collection(catalog, database)
    await CatalogScripts(redis, keys).tenants("reset")
    assert await catalog.tenants.get("default_tenant") is None
    assert await catalog.databases.get("default_tenant", "default_database") is None
    assert await catalog.databases.of_tenant("default_tenant") == []
    await catalog.bootstrap()  # finishes it for the tenant that it needs
    fresh = await catalog.databases.get("default_tenant", "default_database")
    assert fresh is not None
    assert fresh.key != database.key
    assert await collector.collect_deleted() == 1
    assert await keys_of(redis, keys, made.id) == set()
    assert await redis.smembers(keys.cleared_tenants) == set()


async def test_a_state_without_a_row_is_an_orphan_once_it_is_old(
    catalog: Catalog, database: Database, redis: Redis, keys: Keys, collector: Collector
) -> None:
    kept = await make_collection(catalog, database)
    await Lifecycle(redis, keys).create("orphan", database.key, FIXED, 1)
    assert await Collector(redis, keys, catalog, orphan_age_s=60.0).collect_orphans() == 0
    assert await collector.collect_orphans() == 1
    assert await keys_of(redis, keys, "orphan") == set()
    assert await keys_of(redis, keys, kept.id) != set()


async def test_a_creator_that_comes_after_its_state_was_collected_does_not_win_a_dead_name(
    catalog: Catalog, database: Database, redis: Redis, keys: Keys
) -> None:
    scripts = CatalogScripts(redis, keys)
    await scripts.collections(database.key, "abandon", "slow")
    assert await scripts.collections(database.key, "create", "numbers", "slow", b"{}") == [b"TRASHED"]
    await scripts.collections(database.key, "collected", "slow")
    made = await make_collection(catalog, database)
    assert await scripts.collections(database.key, "abandon", made.id) == [b"OK", 0]


async def test_rows_and_states_that_drifted_apart_are_repaired(
    catalog: Catalog, database: Database, redis: Redis, keys: Keys, collector: Collector
) -> None:
    behind = await make_collection(catalog, database, "behind")
    lost = await make_collection(catalog, database, "lost")
    await catalog.collections.update(database, behind, metadata={"a": 1})
    await redis.hset(keys.state(behind.id), "gen", "1")
    await redis.delete(keys.state(lost.id))
    assert await collector.repair_database(database, unknown) == 2
    assert await collector.repair_database(database, unknown) == 0
    assert await redis.hget(keys.state(behind.id), "gen") == b"2"
    assert await catalog.collections.count(database) == 1
    await make_collection(catalog, database, "lost")


async def test_what_the_catalog_deleted_is_remembered_until_its_objects_are_gone(
    catalog: Catalog, database: Database, redis: Redis, keys: Keys, collector: Collector
) -> None:
    made = [await make_collection(catalog, database, f"c{number}") for number in range(3)]
    kept = await make_collection(catalog, database, "kept")
    for one in made[:2]:
        await catalog.collections.delete(database, one.name)
    assert await collector.graves() == {}
    await collector.collect_deleted()
    assert (await collector.graves()).keys() == {one.id for one in made[:2]}
    since = await collector.graves()
    await catalog.reset()
    await collector.collect_deleted()
    assert (await collector.graves()).keys() == {*(one.id for one in made), kept.id}
    assert since.items() <= (await collector.graves()).items()
    await collector.forget([one.id for one in made])
    assert (await collector.graves()).keys() == {kept.id}


async def test_a_process_that_slept_within_a_reset_clears_nothing_of_a_tenant_that_was_made_again(
    catalog: Catalog, redis: Redis, keys: Keys, monkeypatch: pytest.MonkeyPatch
) -> None:
    await catalog.tenants.create("acme")
    await catalog.databases.create("acme", "main")
    await CatalogScripts(redis, keys).tenants("reset")
    sleeper = Removal(redis, keys, catalog.journal)
    run, slept = CatalogScripts.databases, False

    async def overtaken(scripts: CatalogScripts, tenant: str, verb: str, *args: Argument) -> object:
        nonlocal slept
        if verb == "clear" and not slept:
            slept = True
            await Removal(redis, keys, catalog.journal).clear_tenant("acme")
            await catalog.tenants.create("acme")
            await catalog.databases.create("acme", "main")
        return await run(scripts, tenant, verb, *args)

    monkeypatch.setattr(CatalogScripts, "databases", overtaken)
    await sleeper.clear_tenant("acme")
    assert slept
    assert [each.name for each in await catalog.databases.of_tenant("acme")] == ["main"]


async def test_a_process_that_slept_within_a_reset_ends_no_later_one_before_its_time(
    catalog: Catalog, redis: Redis, keys: Keys, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Databases of the tenant that the second reset removed would show in a third one of the same name."""
    await catalog.tenants.create("acme")
    scripts = CatalogScripts(redis, keys)
    await scripts.tenants("reset")
    run, slept = CatalogScripts.tenants, False

    async def overtaken(scripts: CatalogScripts, verb: str, *args: Argument) -> object:
        nonlocal slept
        if verb == "cleared" and not slept:
            slept = True
            await Removal(redis, keys, catalog.journal).clear_tenant("acme")
            await catalog.tenants.create("acme")
            await catalog.databases.create("acme", "main")
            await run(scripts, "reset")
        return await run(scripts, verb, *args)

    monkeypatch.setattr(CatalogScripts, "tenants", overtaken)
    await Removal(redis, keys, catalog.journal).clear_tenant("acme")
    assert slept
    await catalog.tenants.create("acme")
    assert await catalog.databases.of_tenant("acme") == []
