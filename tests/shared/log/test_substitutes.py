"""Substitutes for damaged and missing entries: only what was written is taken, and what is skipped is kept in mind."""

import dataclasses

import numpy as np
import pytest
from redis.asyncio import Redis

from shared.catalog import Catalog, Collection, Database
from shared.errors import Corrupt, Gone
from shared.log.batch import EncodedEntry, build_batch, split_batch
from shared.log.lifecycle import Lifecycle
from shared.log.log import Log
from shared.log.state import Entry, Pointer
from shared.log.substitutes import Substitutes
from shared.log.verification import DamagedEntry
from shared.records.model import Op
from shared.redis.keys import Keys
from tests.shared.log.appending import append, append_batches, ids_of, make_collection
from tests.shared.log.damaging import replace_entry

GONE = {"gone": b""}
KINDS = [{"d": b"garbage"}, {"n": b"17"}, {"c": b"x"}, GONE]


@pytest.fixture
def log(redis: Redis, keys: Keys) -> Log:
    return Log(redis, keys)


@pytest.fixture
def substitutes(redis: Redis, keys: Keys) -> Substitutes:
    return Substitutes(redis, keys)


async def written(log: Log, collection: Collection, ids: str) -> list[Entry]:
    for id_ in ids:
        await append(log, collection, [id_])
    return (await log.read(collection.id, 0)).entries


async def read_on(log: Log, collection: Collection) -> list[Entry]:
    """All entries, read in as many pages as it takes."""
    entries: list[Entry] = []
    while True:
        last = entries[-1] if entries else None
        read = await log.read(collection.id, 0, last.id if last else "0-0", after_chain=last.chain if last else "")
        entries += read.entries
        if read.complete:
            return entries


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("number", [0, 1, 3])
async def test_a_copy_of_what_was_written_takes_its_place(
    catalog: Catalog, database: Database, redis: Redis, keys: Keys, log: Log, substitutes: Substitutes,
    kind: dict[str, bytes], number: int,
) -> None:  # fmt: skip
    collection = await make_collection(catalog, database)
    entries = await written(log, collection, "abcd")
    await replace_entry(redis, keys.log(collection.id, 0), number, **kind)
    with pytest.raises(DamagedEntry):
        await read_on(log, collection)
    assert await substitutes.put_back(collection.id, 0, entries[number])
    assert await read_on(log, collection) == entries
    assert await substitutes.skipped(collection.id, 0) == []


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("number", [0, 1, 3])
async def test_a_skipped_entry_is_passed_over_and_its_positions_are_kept(
    catalog: Catalog, database: Database, redis: Redis, keys: Keys, log: Log, substitutes: Substitutes,
    kind: dict[str, bytes], number: int,
) -> None:  # fmt: skip
    collection = await make_collection(catalog, database)
    await written(log, collection, "abcd")
    await replace_entry(redis, keys.log(collection.id, 0), number, **kind)
    skipped = await substitutes.skip(collection.id, 0, f"{number + 1}-0")
    assert skipped is not None
    assert (skipped.entry, skipped.first, skipped.end) == (f"{number + 1}-0", number + 1, number + 2)
    assert await substitutes.skipped(collection.id, 0) == [skipped]
    found = await read_on(log, collection)
    assert ids_of(found) == {at + 1: id_ for at, id_ in enumerate("abcd") if at != number}
    assert [entry.count for entry in found] == [int(at != number) for at in range(4)]
    assert await substitutes.skip(collection.id, 0, f"{number + 1}-0") is None
    await append(log, collection, ["e"])
    assert ids_of(await read_on(log, collection))[5] == "e"


async def test_what_was_not_written_there_is_refused(
    catalog: Catalog, database: Database, redis: Redis, keys: Keys, log: Log, substitutes: Substitutes
) -> None:
    collection = await make_collection(catalog, database)
    other = await make_collection(catalog, database, "other")
    entries, others = await written(log, collection, "abcd"), await written(log, other, "wxyz")
    await replace_entry(redis, keys.log(collection.id, 0), 1, gone=b"")
    wrong = [
        others[1],  # whole, and of another history
        dataclasses.replace(entries[1], payload=entries[2].payload),
        dataclasses.replace(entries[1], payload=entries[2].payload, checksum=entries[2].checksum),
        dataclasses.replace(entries[1], count=2),
        dataclasses.replace(entries[1], chain=""),
        dataclasses.replace(entries[1], chain="", checksum=""),
    ]
    for copy in wrong:
        with pytest.raises(Corrupt):
            await substitutes.put_back(collection.id, 0, copy)
    assert not await substitutes.put_back(collection.id, 0, entries[2])  # is not damaged
    assert await substitutes.skip(collection.id, 0, "3-0") is None
    with pytest.raises(DamagedEntry):
        await read_on(log, collection)


async def test_neighbours_that_are_lost_together_are_put_back_from_either_end(
    catalog: Catalog, database: Database, redis: Redis, keys: Keys, log: Log, substitutes: Substitutes
) -> None:
    collection = await make_collection(catalog, database)
    entries = await written(log, collection, "abcde")
    for _ in range(3):
        await replace_entry(redis, keys.log(collection.id, 0), 1, gone=b"")
    with pytest.raises(DamagedEntry) as found:
        await read_on(log, collection)
    assert (found.value.entry_id, found.value.first, found.value.end) == ("4-0", 2, 5)
    assert await substitutes.put_back(collection.id, 0, entries[3])
    assert await substitutes.put_back(collection.id, 0, entries[1])
    skipped = await substitutes.skip(collection.id, 0, "3-0")
    assert skipped is not None
    assert ids_of(await read_on(log, collection)) == {1: "a", 2: "b", 4: "d", 5: "e"}


async def test_damaged_neighbours_are_mended_in_any_order(
    catalog: Catalog, database: Database, redis: Redis, keys: Keys, log: Log, substitutes: Substitutes
) -> None:
    for number, order in enumerate([(1, 2, 3), (3, 2, 1), (2, 3, 1), (2, 1, 3)]):
        collection = await make_collection(catalog, database, f"c{number}")
        entries = await written(log, collection, "abcde")
        for at in (1, 2, 3):
            await replace_entry(redis, keys.log(collection.id, 0), at, n=b"garbage")
        for at in order:
            if at == 2:
                assert await substitutes.skip(collection.id, 0, "3-0")
            else:
                assert await substitutes.put_back(collection.id, 0, entries[at])
        assert ids_of(await read_on(log, collection)) == {1: "a", 2: "b", 4: "d", 5: "e"}


async def test_an_append_of_several_entries_is_whole_without_the_one_that_is_skipped(
    catalog: Catalog, database: Database, redis: Redis, keys: Keys, log: Log, substitutes: Substitutes
) -> None:
    for number in range(3):
        collection = await make_collection(catalog, database, f"c{number}")
        await append(log, collection, ["before"])
        batch = build_batch(Op.UPSERT, ["x"], np.zeros((1, 2), dtype=np.float32))
        [one] = split_batch(batch, collection.layout)[0]
        parts = [EncodedEntry(offset, 1, one.payload) for offset in range(3)]
        await append_batches(log, collection, {0: parts})
        await append(log, collection, ["after"])
        await replace_entry(redis, keys.log(collection.id, 0), 1 + number, n=b"garbage")
        await substitutes.skip(collection.id, 0, f"{2 + number}-0")
        found = await read_on(log, collection)
        assert [(entry.first, entry.end, entry.last) for entry in found] == [
            (1, 2, True), (2, 5, False), (2, 5, False), (2, 5, True), (5, 6, True),
        ]  # fmt: skip


async def test_trimming_counts_a_substitute_and_lets_go_of_it(
    catalog: Catalog, database: Database, redis: Redis, keys: Keys, log: Log, substitutes: Substitutes
) -> None:
    collection = await make_collection(catalog, database)
    await written(log, collection, "abcd")
    await replace_entry(redis, keys.log(collection.id, 0), 1, c=b"garbage", e=b"garbage")
    assert await substitutes.skip(collection.id, 0, "2-0")
    pointer = Pointer(1, "h", 3)
    assert await log.commit(collection.id, 0, None, pointer, 0)
    assert await log.trim(collection.id, 0, pointer, 0) == 2
    assert not await redis.exists(keys.substitutes(collection.id))
    [state] = await log.states([(collection.id, 0)])
    assert state is not None
    assert state.ops_backlog == 2
    assert len(await substitutes.skipped(collection.id, 0)) == 1
    assert ids_of(await read_on(log, collection)) == {3: "c", 4: "d"}


async def test_a_damaged_substitute_is_not_believed(
    catalog: Catalog, database: Database, redis: Redis, keys: Keys, log: Log, substitutes: Substitutes
) -> None:
    collection = await make_collection(catalog, database)
    entries = await written(log, collection, "abc")
    await replace_entry(redis, keys.log(collection.id, 0), 1, d=b"garbage")
    assert await substitutes.put_back(collection.id, 0, entries[1])
    await redis.hset(keys.substitutes(collection.id), "0:2-0:d", b"garbage")
    with pytest.raises(DamagedEntry, match="substitute"):
        await read_on(log, collection)
    await redis.delete(keys.substitutes(collection.id))
    assert await substitutes.put_back(collection.id, 0, entries[1])
    assert await read_on(log, collection) == entries


async def test_a_deleted_collection_is_given_none_and_leaves_no_substitute(
    catalog: Catalog, database: Database, redis: Redis, keys: Keys, log: Log, substitutes: Substitutes
) -> None:
    collection = await make_collection(catalog, database)
    entries = await written(log, collection, "abc")
    await replace_entry(redis, keys.log(collection.id, 0), 1, d=b"garbage")
    assert await substitutes.put_back(collection.id, 0, entries[1])
    lifecycle = Lifecycle(redis, keys)
    await lifecycle.mark_deleted([collection.id])
    with pytest.raises(Gone):
        await substitutes.put_back(collection.id, 0, entries[1])
    with pytest.raises(Gone):
        await substitutes.skip(collection.id, 0, "2-0")
    await lifecycle.collect(collection.id)
    assert not await redis.exists(keys.substitutes(collection.id))
