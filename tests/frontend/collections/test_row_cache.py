from __future__ import annotations

import asyncio
from typing import Any

import pytest

from frontend.collections.row_cache import RowCache
from shared.catalog import Collection, Database, NewCollection
from shared.errors import InvalidArgument, NotFound, Unavailable
from tests.frontend.memory_catalog import MemoryCatalog, MemoryCollections

PLACE = ("default_tenant", "default_database")


class StillClock:
    def __init__(self) -> None:
        self.time_s = 100.0

    def now(self) -> float:
        return self.time_s

    def monotonic(self) -> float:
        return self.time_s

    async def sleep(self, seconds: float) -> None:
        self.time_s += seconds


class CountingCollections(MemoryCollections):
    lookups = 0

    async def get_by_id(self, db: Database, collection_id: str) -> Collection | None:
        self.lookups += 1
        await asyncio.sleep(0)
        return await super().get_by_id(db, collection_id)


class CountingCatalog(MemoryCatalog):
    def __init__(self) -> None:
        super().__init__()
        self.collections: CountingCollections = CountingCollections(self)


@pytest.fixture
def catalog() -> CountingCatalog:
    return CountingCatalog()


@pytest.fixture
def clock() -> StillClock:
    return StillClock()


@pytest.fixture
def rows(catalog: Any, clock: StillClock) -> RowCache:
    return RowCache(catalog.databases, catalog.collections, clock, rows_max=2, age_max_s=10.0)


async def add(catalog: MemoryCatalog, name: str = "col") -> Collection:
    database = await catalog.databases.get(*PLACE)
    assert database is not None
    row, _ = await catalog.collections.create(database, NewCollection(name, None, {}, {}, {"shards": 1}), False)
    return row


async def test_a_row_is_read_once_until_it_is_old(catalog: CountingCatalog, clock: StillClock, rows: RowCache) -> None:
    row = await add(catalog)
    for _ in range(3):
        assert await rows.resolve(*PLACE, row.id.upper()) is row
    assert catalog.collections.lookups == 1
    clock.time_s += 10.1
    await rows.resolve(*PLACE, row.id)
    assert catalog.collections.lookups == 2


async def test_an_old_row_is_read_again_once_however_many_ask(
    catalog: CountingCatalog, clock: StillClock, rows: RowCache
) -> None:
    row = await rows.resolve(*PLACE, (await add(catalog)).id)
    clock.time_s += 10.1
    await asyncio.gather(*(rows.resolve(*PLACE, row.id) for _ in range(5)))
    assert catalog.collections.lookups == 2
    database = await catalog.databases.get(*PLACE)
    assert database is not None
    await catalog.collections.delete(database, row.name)
    clock.time_s += 10.1
    for _ in range(2):
        with pytest.raises(NotFound):
            await rows.resolve(*PLACE, row.id)


async def test_an_old_row_that_could_not_be_read_again_is_still_old(
    catalog: CountingCatalog, clock: StillClock, rows: RowCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    row = await rows.resolve(*PLACE, (await add(catalog)).id)
    clock.time_s += 10.1

    async def away(*_: object) -> None:
        raise Unavailable("Redis is away")

    with monkeypatch.context() as patched:
        patched.setattr(catalog.databases, "get", away)
        with pytest.raises(Unavailable):
            await rows.resolve(*PLACE, row.id)
    await rows.resolve(*PLACE, row.id)
    assert catalog.collections.lookups == 2


async def test_checks_come_in_the_contracts_order(rows: RowCache) -> None:
    with pytest.raises(InvalidArgument, match="database name must be at least 3 characters"):
        await rows.resolve("t", "ab", "nonsense")
    with pytest.raises(InvalidArgument, match="Collection ID is not a valid UUIDv4"):
        await rows.resolve("t", "missing", "nonsense")
    with pytest.raises(NotFound, match=r"Collection \[6f9619ff-8b86-4d01-b42d-00cf4fc964ff\] does not exist\.$"):
        await rows.resolve("t", "missing", "6F9619FF-8B86-4D01-B42D-00CF4FC964FF")


async def test_a_cached_row_is_not_served_to_another_tenant_or_database(
    catalog: CountingCatalog, rows: RowCache
) -> None:
    row = await add(catalog)
    await rows.resolve(*PLACE, row.id)
    await catalog.databases.create("default_tenant", "other")
    for place in (("default_tenant", "other"), ("nobody", "default_database")):
        with pytest.raises(NotFound):
            await rows.resolve(*place, row.id)
    assert await rows.resolve(*PLACE, row.id) is row


async def test_refresh_sees_changes_and_deletions(catalog: CountingCatalog, rows: RowCache) -> None:
    row = await rows.resolve(*PLACE, (await add(catalog)).id)
    database = await catalog.databases.get(*PLACE)
    assert database is not None
    await catalog.collections.update(database, row, name="renamed")
    assert (await rows.resolve(*PLACE, row.id)).name == "col"
    assert (await rows.refresh(row)).name == "renamed"
    assert (await rows.resolve(*PLACE, row.id)).name == "renamed"
    await catalog.collections.delete(database, "renamed")
    with pytest.raises(NotFound):
        await rows.refresh(row)
    with pytest.raises(NotFound):
        await rows.resolve(*PLACE, row.id)


async def test_the_least_recently_used_row_goes_first(catalog: CountingCatalog, rows: RowCache) -> None:
    first, second, third = [await add(catalog, name) for name in ("one", "two", "three")]
    for row in (first, second, first, third):
        await rows.resolve(*PLACE, row.id)
    before = catalog.collections.lookups
    await rows.resolve(*PLACE, first.id)
    assert catalog.collections.lookups == before
    await rows.resolve(*PLACE, second.id)
    assert catalog.collections.lookups == before + 1


# ---- refreshing


async def test_refreshes_that_are_asked_for_at_once_share_a_lookup(catalog: CountingCatalog, rows: RowCache) -> None:
    row = await rows.resolve(*PLACE, (await add(catalog)).id)
    assert await asyncio.gather(*(rows.refresh(row) for _ in range(400))) == [row] * 400
    assert catalog.collections.lookups == 2


async def test_a_refresh_never_shares_a_lookup_that_had_begun(catalog: CountingCatalog, rows: RowCache) -> None:
    row = await add(catalog)
    first = asyncio.create_task(rows.refresh(row))
    while not catalog.collections.lookups:  # noqa: ASYNC110 (a fake without events)
        await asyncio.sleep(0)
    database = await catalog.databases.get(*PLACE)
    assert database is not None
    await catalog.collections.update(database, row, name="renamed")
    assert (await rows.refresh(row)).name == "renamed"
    await first


async def test_a_cancelled_refresh_does_not_end_the_others(catalog: CountingCatalog, rows: RowCache) -> None:
    row = await add(catalog)
    asking = [asyncio.create_task(rows.refresh(row)) for _ in range(3)]
    await asyncio.sleep(0)
    asking[0].cancel()
    outcomes = await asyncio.gather(*asking, return_exceptions=True)
    assert isinstance(outcomes[0], asyncio.CancelledError)
    assert outcomes[1:] == [row, row]


async def test_a_refresh_of_a_deleted_collection_finds_nothing(catalog: CountingCatalog, rows: RowCache) -> None:
    row = await add(catalog)
    database = await catalog.databases.get(*PLACE)
    assert database is not None
    await catalog.collections.delete(database, row.name)
    for outcome in await asyncio.gather(*(rows.refresh(row) for _ in range(3)), return_exceptions=True):
        assert isinstance(outcome, NotFound)


async def test_a_row_that_cannot_be_refreshed_stays(catalog: CountingCatalog, rows: RowCache) -> None:
    row = await rows.resolve(*PLACE, (await add(catalog)).id)
    catalog.away = True
    with pytest.raises(Unavailable):
        await rows.refresh(row)
    assert await rows.resolve(*PLACE, row.id) is row


async def test_a_row_learns_metadata_keys_unless_it_was_read_anew(catalog: CountingCatalog, rows: RowCache) -> None:
    row = await rows.resolve(*PLACE, (await add(catalog)).id)
    rows.learn(row, [("k", "int")])
    learned = await rows.resolve(*PLACE, row.id)
    assert learned.keys == {("k", "int")}
    rows.learn(row, [("other", "int")])
    assert await rows.resolve(*PLACE, row.id) is learned, "the row that was written by is not the present one"
    rows.learn(learned, [("l", "bool")])
    assert (await rows.resolve(*PLACE, row.id)).keys == {("k", "int"), ("l", "bool")}
