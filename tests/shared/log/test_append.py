"""The contract of an append, on real servers."""

import asyncio
from collections.abc import AsyncIterator

import numpy as np
import pytest
from redis.asyncio import Redis

from shared import limits
from shared.catalog import Catalog, Database
from shared.cluster.placement import Layout
from shared.errors import Backoff, Corrupt, DimensionMismatch, Gone, StaleGeneration, StorageFull, Unavailable
from shared.log.append import AppendRequest
from shared.log.batch import EncodedEntry, build_batch, split_batch
from shared.log.log import Log
from shared.log.state import Pointer, after_position, position_of
from shared.records.model import Op
from shared.redis.client import open_redis
from shared.redis.keys import Keys
from tests.redis_server import RedisServer
from tests.shared.log.appending import append, append_batches, everything, make_cluster, make_collection


@pytest.fixture
def log(redis: Redis, keys: Keys) -> Log:
    return Log(redis, keys)


async def test_positions_are_dense_from_one(catalog: Catalog, database: Database, log: Log) -> None:
    collection = await make_collection(catalog, database)
    first = await append(log, collection, ["a", "b", "c"])
    second = await append(log, collection, ["d"])
    assert (first.first, first.head, second.first, second.head) == (1, 4, 4, 5)
    assert await everything(log, collection) == {1: "a", 2: "b", 3: "c", 4: "d"}


@pytest.mark.parametrize("shards", [1, 3])
async def test_racing_appends_share_no_position_and_leave_no_gap(
    catalog: Catalog, database: Database, log: Log, shards: int
) -> None:
    collection = await make_collection(catalog, database, shards=shards)
    sizes = [1 + (7 * i) % 5 for i in range(60)]
    done = await asyncio.gather(*(append(log, collection, [f"{i}.{j}" for j in range(n)]) for i, n in enumerate(sizes)))
    found = await everything(log, collection)
    assert sorted(found) == list(range(1, sum(sizes) + 1))
    for i, (size, appended) in enumerate(zip(sizes, done, strict=True)):
        assert appended.head == appended.first + size
        assert [found[appended.first + j] for j in range(size)] == [f"{i}.{j}" for j in range(size)]


async def test_a_request_id_appends_once(catalog: Catalog, database: Database, log: Log) -> None:
    collection = await make_collection(catalog, database)
    done = await asyncio.gather(*(append(log, collection, ["a", "b"], request_id="r") for _ in range(8)))
    later = await append(log, collection, ["c"])
    again = await append(log, collection, ["a", "b"], request_id="r")
    assert {(one.first, one.head) for one in [*done, again]} == {(1, 3)}
    assert later.first == 3
    assert await everything(log, collection) == {1: "a", 2: "b", 3: "c"}


async def test_a_request_id_is_remembered_for_a_while_only(
    catalog: Catalog, database: Database, log: Log, redis: Redis, keys: Keys
) -> None:
    collection = await make_collection(catalog, database)
    await append(log, collection, ["a"], request_id="r")
    left_s = await redis.ttl(keys.request(collection.id, "r"))
    assert 0 < left_s <= limits.REQUEST_ID_TTL_S


async def test_a_large_batch_is_several_entries_of_one_append(catalog: Catalog, database: Database, log: Log) -> None:
    collection = await make_collection(catalog, database)
    await append(log, collection, ["before"], dimension=1024)
    rows = 3 * limits.ENTRY_BYTES_TARGET // 4096
    batch = build_batch(Op.ADD, [str(i) for i in range(rows)], np.ones((rows, 1024), dtype=np.float32))
    parts = split_batch(batch, Layout(0, 1))
    await append_batches(log, collection, parts, dimension=1024)
    read = await log.read(collection.id, 0)
    chunks = read.entries[1:]
    assert len(chunks) >= 3
    assert {(entry.first, entry.end) for entry in chunks} == {(2, 2 + rows)}
    assert [entry.last for entry in chunks] == [False] * (len(chunks) - 1) + [True]
    assert sum(entry.count for entry in chunks) == rows
    assert len(await everything(log, collection)) == rows + 1


async def test_a_reader_with_a_limit_gets_on_and_misses_nothing(catalog: Catalog, database: Database, log: Log) -> None:
    collection = await make_collection(catalog, database)
    for i in range(130):
        await append(log, collection, [str(i)])
    seen, after, rounds = [], "0-0", 0
    while True:
        read = await log.read(collection.id, 0, after, bytes_max=20_000)
        seen += [entry.id for entry in read.entries]
        after, rounds = read.entries[-1].id, rounds + 1
        if read.complete:
            break
    whole = await log.read(collection.id, 0)
    assert rounds > 2
    assert seen == [entry.id for entry in whole.entries]
    assert whole.complete
    assert not (await log.read(collection.id, 0, bytes_max=1)).complete
    assert (await log.read(collection.id, 0, after)).entries == []


async def test_the_first_write_fixes_the_dimension(catalog: Catalog, database: Database, log: Log) -> None:
    collection = await make_collection(catalog, database)
    await append(log, collection, ["a"], dimension=3)
    with pytest.raises(DimensionMismatch) as refused:
        await append(log, collection, ["b"], dimension=4)
    assert refused.value.expected == 3
    assert await log.fix_dimension(collection.id, 9) == 3
    assert (await log.read(collection.id, 0)).state.dimension == 3


async def test_a_dimension_can_be_fixed_without_a_write(catalog: Catalog, database: Database, log: Log) -> None:
    collection = await make_collection(catalog, database)
    dimensions = await asyncio.gather(*(log.fix_dimension(collection.id, d) for d in (5, 6, 7)))
    assert len(set(dimensions)) == 1
    assert (await log.read(collection.id, 0)).state.head == 1


async def test_a_delete_needs_no_dimension(catalog: Catalog, database: Database, log: Log) -> None:
    collection = await make_collection(catalog, database)
    parts = split_batch(build_batch(Op.DELETE, ["a"]), Layout(0, 1))
    await append_batches(log, collection, parts)
    assert (await log.read(collection.id, 0)).state.dimension is None


async def test_a_stale_generation_is_refused_and_a_newer_one_is_not(
    catalog: Catalog, database: Database, log: Log
) -> None:
    collection = await make_collection(catalog, database)
    assert await catalog.collections.update(database, collection, metadata={"k": 1})
    with pytest.raises(StaleGeneration):
        await append(log, collection, ["a"], generation=collection.generation)
    await append(log, collection, ["a"], generation=collection.generation + 1)
    # The row is committed before the state follows: who has read the new row already is not behind.
    await append(log, collection, ["b"], generation=collection.generation + 2)


async def test_a_deleted_collection_takes_no_append_and_no_read(catalog: Catalog, database: Database, log: Log) -> None:
    collection = await make_collection(catalog, database)
    await append(log, collection, ["a"])
    assert await catalog.collections.delete(database, "numbers")
    with pytest.raises(Gone):
        await append(log, collection, ["b"])
    assert (await log.read(collection.id, 0)).state.deleted
    with pytest.raises(Gone):
        await log.read("00000000-0000-4000-8000-000000000000", 0)
    with pytest.raises(Gone):
        await log.fix_dimension(collection.id, 2)


async def test_a_full_backlog_refuses_until_it_is_trimmed(
    catalog: Catalog, database: Database, redis: Redis, keys: Keys
) -> None:
    log = Log(redis, keys, backlog_ops_max=5)
    collection = await make_collection(catalog, database, shards=2)
    await append(log, collection, ["a", "b", "c", "d"])
    with pytest.raises(Backoff):
        await append(log, collection, ["e", "f"])
    await append(log, collection, ["e"])
    before = sum([(await log.read(collection.id, shard)).state.ops_backlog for shard in range(2)])
    for shard in range(2):
        pointer = Pointer(1, "h", 6)
        assert await log.commit(collection.id, shard, None, pointer, 0)
        await log.trim(collection.id, shard, pointer, 0)
    await append(log, collection, ["g", "h", "i", "j", "k"])
    assert before == 5


async def test_a_backlog_is_also_limited_in_bytes(
    catalog: Catalog, database: Database, redis: Redis, keys: Keys
) -> None:
    log = Log(redis, keys, backlog_bytes_max=5_000)
    collection = await make_collection(catalog, database)
    await append(log, collection, ["a"])
    with pytest.raises(Backoff):
        await append(log, collection, [f"{i:01000}" for i in range(5)])
    assert (await log.read(collection.id, 0)).state.ops_backlog == 1


@pytest.fixture
async def own_cluster(own_server: RedisServer, keys: Keys) -> AsyncIterator[tuple[Redis, Keys, Catalog, Database]]:
    async with open_redis(own_server.url) as redis:
        yield redis, keys, *await make_cluster(redis, keys)


async def test_a_server_out_of_memory_refuses_appends_and_still_reads_commits_trims_and_deletes(
    own_cluster: tuple[Redis, Keys, Catalog, Database],
) -> None:
    redis, keys, catalog, database = own_cluster
    log = Log(redis, keys)
    collection = await make_collection(catalog, database)
    await append(log, collection, ["a"])
    await redis.config_set("maxmemory", "1")
    with pytest.raises(Backoff):
        await append(log, collection, ["b"])
    read = await log.read(collection.id, 0)
    assert (read.state.head, len(read.entries)) == (2, 1)
    pointer = Pointer(1, "h", 2)
    assert await log.commit(collection.id, 0, None, pointer, 0)
    assert await log.trim(collection.id, 0, pointer, 0) == 1
    assert await catalog.collections.delete(database, "numbers")
    await redis.config_set("maxmemory", "0")


async def test_a_server_out_of_memory_takes_deletes_and_says_so_when_it_refuses(
    own_cluster: tuple[Redis, Keys, Catalog, Database],
) -> None:
    redis, keys, catalog, database = own_cluster
    log = Log(redis, keys)
    collection = await make_collection(catalog, database)
    await redis.config_set("maxmemory", "1")
    with pytest.raises(StorageFull, match="nothing was written, deletes are still taken"):
        await append(log, collection, ["a"])
    batches = split_batch(build_batch(Op.DELETE, ["a"]), collection.layout)
    request = AppendRequest(
        collection_id=collection.id,
        request_id="delete",
        batches=batches,
        dimension=None,
        generation=None,
        deletes_only=True,
    )
    assert (await log.append(request)).first == 1
    await redis.config_set("maxmemory", "0")


async def test_new_metadata_keys_are_remembered_with_the_append(catalog: Catalog, database: Database, log: Log) -> None:
    collection = await make_collection(catalog, database)
    batch = build_batch(Op.UPSERT, ["a"], np.zeros((1, 2), dtype=np.float32), metadatas=['{"k":1}'])
    parts = split_batch(batch, collection.layout)
    await append_batches(log, collection, parts, dimension=2, generation=1, new_keys=[("k", "int"), ("é}", "string")])
    found = await catalog.collections.get(database, "numbers")
    assert found is not None
    assert found.keys == {("k", "int"), ("é}", "string")}


@pytest.mark.parametrize("batches", [{}, {0: []}])
def test_an_append_needs_an_operation(batches: dict[int, list[EncodedEntry]]) -> None:
    with pytest.raises(ValueError, match="at least one"):
        AppendRequest(collection_id="c", request_id="r", batches=batches, dimension=None, generation=None)


async def test_an_empty_server_is_unavailable_and_not_empty(redis: Redis, keys: Keys) -> None:
    log = Log(redis, keys)
    batches = {0: [EncodedEntry(0, 1, b"x")]}
    request = AppendRequest(collection_id="c", request_id="r", batches=batches, dimension=None, generation=None)
    with pytest.raises(Unavailable):
        await log.append(request)
    with pytest.raises(Unavailable):
        await log.read("c", 0)


async def test_the_pointer_moves_once_from_each_version(catalog: Catalog, database: Database, log: Log) -> None:
    collection = await make_collection(catalog, database)
    await append(log, collection, ["a", "b", "c"])
    rivals = [Pointer(1, f"h{i}", 3) for i in range(16)]
    won = await asyncio.gather(*(log.commit(collection.id, 0, None, rival, 0) for rival in rivals))
    assert sum(won) == 1
    winner = rivals[won.index(True)]
    assert (await log.read(collection.id, 0)).state.pointer == winner
    assert await log.commit(collection.id, 0, None, winner, 0)  # the same commit again, after a lost answer
    assert not await log.commit(collection.id, 0, Pointer(1, "other", 3), Pointer(2, "h", 4), 0)
    assert await log.commit(collection.id, 0, winner, Pointer(2, "h", 4), 0)


async def test_a_manifest_cannot_cover_what_nobody_was_given(catalog: Catalog, database: Database, log: Log) -> None:
    collection = await make_collection(catalog, database)
    await append(log, collection, ["a"])
    with pytest.raises(Corrupt):
        await log.commit(collection.id, 0, None, Pointer(1, "h", 3), 0)
    assert (await log.read(collection.id, 0)).state.pointer is None


async def test_trimming_stops_at_the_committed_manifest(catalog: Catalog, database: Database, log: Log) -> None:
    collection = await make_collection(catalog, database)
    for i in range(6):
        await append(log, collection, [str(i)])
    first, second = Pointer(1, "h1", 3), Pointer(2, "h2", 5)
    assert await log.trim(collection.id, 0, first, 0) == 0  # not committed
    await log.commit(collection.id, 0, None, first, 0)
    assert await log.trim(collection.id, 0, Pointer(1, "forged", 3), 0) == 0
    assert await log.trim(collection.id, 0, second, 0) == 0
    await log.commit(collection.id, 0, first, second, 0)
    assert await log.trim(collection.id, 0, first, 0) == 2  # an ancestor
    read = await log.read(collection.id, 0, after_position(second.covers))
    assert [position_of(entry.id) for entry in read.entries] == [5, 6]
    assert await log.trim(collection.id, 0, second, 0) == 2
    assert await log.trim(collection.id, 0, second, 0) == 0
    state = (await log.read(collection.id, 0)).state
    assert (state.ops_backlog, state.trimmed, state.tail) == (2, 5, "6-0")
    assert state.bytes_backlog > 0
    assert state.uncompacted
    assert not state.trimmable


async def test_half_an_append_is_never_trimmed(catalog: Catalog, database: Database, log: Log) -> None:
    collection = await make_collection(catalog, database)
    await append(log, collection, ["a", "b"])
    inside = Pointer(1, "h", 2)
    await log.commit(collection.id, 0, None, inside, 0)
    with pytest.raises(Corrupt):
        await log.trim(collection.id, 0, inside, 0)
    assert len((await log.read(collection.id, 0)).entries) == 1


async def test_states_of_many_shards_come_at_once(catalog: Catalog, database: Database, log: Log) -> None:
    collection = await make_collection(catalog, database, shards=2)
    await append(log, collection, [str(i) for i in range(20)])
    states = await log.states([(collection.id, 0), ("nobody", 0), (collection.id, 1)])
    assert states[1] is None
    assert sum(state.ops_backlog for state in states if state) == 20
