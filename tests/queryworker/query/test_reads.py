"""Whatever was written, compacted and trimmed, and in whatever order: answers are those of a dict."""

from __future__ import annotations

import random
from pathlib import Path

import msgspec
import numpy as np
import orjson
import pytest

from shared.errors import InvalidArgument, StaleRead
from shared.records.indexing import Indexing
from shared.records.model import Include, Op, ReadLevel
from shared.records.selection import Selection
from shared.records.where import All, Compare, DocumentContains, IdIn, MetadataCompare
from shared.redis.keys import Keys
from shared.rpc import messages
from shared.vectors.space import Space
from tests.queryworker.truth import assert_get, assert_query, get_request, in_order, query_request, shown
from tests.queryworker.world import DIMENSION, World, open_world
from tests.redis_server import RedisServer
from tests.shared.memtable.model import Operation


def _vector(random_: random.Random) -> tuple[float, ...]:
    return tuple(float(random_.randint(-9, 9)) for _ in range(DIMENSION))


def _operation(random_: random.Random, ids: int) -> Operation:
    op = random_.choices(list(Op), [3, 2, 3, 2])[0]
    id_ = f"id{random_.randrange(ids)}"
    if op is Op.DELETE:
        return Operation(op, id_)
    vector = None if op is Op.UPDATE and random_.random() < 0.5 else _vector(random_)
    document = random_.choice([None, "", f"text {random_.randrange(5)}"])
    nothing = [None] if op is not Op.ADD else []
    metadata = random_.choice([None, {"n": random_.choice([0, 1, 2, 2.5, *nothing]), "s": random_.choice("xy")}])
    return Operation(op, id_, vector, document, metadata, random_.choice([None, "file://u"]))


async def _assert_all_reads(world: World, random_: random.Random, space: Space) -> None:
    await assert_get(world, world.state)
    await assert_query(world, world.state, _vector(random_), random_.choice([1, 3, 1000]), space=space)
    bound = random_.choice([0, 1, 2, 2.5])
    where = Selection(where=MetadataCompare("n", Compare.GTE, bound))
    await assert_query(
        world, world.state, _vector(random_), 4, space=space, selection=where,
        keep=lambda _id, row: row.metadata.get("n", -1) >= bound,
    )  # fmt: skip
    ids = [f"id{random_.randrange(40)}" for _ in range(6)] + ["unknown"]
    chosen = Selection(ids=ids, where=DocumentContains("text", negated=True))
    answer = await world.worker.get(get_request(world, chosen))
    expected = in_order(world.state, lambda id_, row: id_ in ids and "text" not in (row.document or ""))
    assert answer.columns.ids == expected
    offset, limit = random_.randrange(5), random_.randrange(5)
    page = await world.worker.get(get_request(world, offset=offset, limit=limit))
    assert page.columns.ids == in_order(world.state)[offset : offset + limit]


@pytest.mark.parametrize(("seed", "space"), [(1, Space.L2), (2, Space.COSINE), (3, Space.IP), (4, Space.L2)])
async def test_random_writes_and_compactions_read_as_a_dict_would(
    valkey_server: RedisServer, keys: Keys, tmp_path: Path, seed: int, space: Space
) -> None:
    random_ = random.Random(seed)
    async with open_world(valkey_server.url, keys, tmp_path, space=space) as world:
        for _ in range(25):
            await world.write([_operation(random_, 40) for _ in range(random_.choice([1, 1, 5, 60]))])
            if random_.random() < 0.6:
                await _assert_all_reads(world, random_, space)
            if random_.random() < 0.3:
                await world.compact(trim=random_.random() < 0.7)
            if random_.random() < 0.3:
                await world.load_newest_manifests()
                await _assert_all_reads(world, random_, space)


async def test_a_type_that_is_not_indexed_is_found_neither_before_nor_after_a_compaction(
    valkey_server: RedisServer, keys: Keys, tmp_path: Path
) -> None:
    """A filter by an integer is allowed as long as those are indexed, whatever floats are."""
    indexing = Indexing(keys={"n": {"float": False}})
    async with open_world(valkey_server.url, keys, tmp_path, indexing=indexing) as world:
        one = _vector(random.Random(6))
        await world.write(
            [Operation(Op.ADD, "int", one, None, {"n": 1}), Operation(Op.ADD, "float", one, None, {"n": 1.0})]
        )
        for _ in range(2):
            for compare, expected in ((Compare.EQ, ["int"]), (Compare.NE, ["float"])):
                chosen = Selection(where=MetadataCompare("n", compare, 1))
                answer = await world.worker.get(get_request(world, chosen))
                assert answer.columns.ids == expected
            await world.compact()
            await world.load_newest_manifests()


async def test_every_position_since_the_manifest_can_be_read_and_no_older_one(
    valkey_server: RedisServer, keys: Keys, tmp_path: Path
) -> None:
    random_ = random.Random(5)
    async with open_world(valkey_server.url, keys, tmp_path) as world:
        for _ in range(8):
            await world.write([_operation(random_, 15) for _ in range(6)])
        await world.compact()
        covered = world.head
        for _ in range(8):
            await world.write([_operation(random_, 15) for _ in range(6)])
        for position, state in world.states.items():
            if position >= covered:
                await assert_get(world, state, as_of=position)
                await assert_query(world, state, _vector(random_), 3, as_of=position)
            else:
                with pytest.raises(StaleRead):
                    await world.worker.get(get_request(world, as_of=position))
        with pytest.raises(StaleRead):
            await world.worker.get(get_request(world, as_of=world.head + 1))


async def test_a_read_as_of_a_position_survives_the_compaction_that_comes_between(
    valkey_server: RedisServer, keys: Keys, tmp_path: Path
) -> None:
    async with open_world(valkey_server.url, keys, tmp_path) as world:
        await world.write([Operation(Op.ADD, "a", (1.0,) * DIMENSION)])
        position = (await world.worker.get(get_request(world))).position
        await world.write([Operation(Op.DELETE, "a")])
        await world.compact()
        await world.load_newest_manifests()
        await assert_get(world, {}, as_of=None)
        await assert_get(world, world.states[position], as_of=position)


async def test_the_second_phase_of_a_get_sends_exactly_the_records_at_the_given_positions(
    valkey_server: RedisServer, keys: Keys, tmp_path: Path
) -> None:
    async with open_world(valkey_server.url, keys, tmp_path) as world:
        await world.write([Operation(Op.ADD, f"r{i}", (float(i),) * DIMENSION) for i in range(20)])
        await world.compact()
        await world.write([Operation(Op.ADD, f"t{i}", (float(i),) * DIMENSION) for i in range(5)])
        await world.write([Operation(Op.UPDATE, "r3", document="new"), Operation(Op.DELETE, "r5")])
        first = await world.worker.get(messages.GetRequest(world.shard(), Selection(), limit=23, ids=False))
        assert first.columns.ids == []
        positions = np.frombuffer(first.inserted, "<i8")
        wanted = positions[[2, 3, 18, 19]]
        await world.write([Operation(Op.DELETE, "r2"), Operation(Op.UPDATE, "t0", document="later")])
        second = await world.worker.get(
            get_request(world, as_of=first.position, inserted=np.append(wanted, 10**6).astype("<i8").tobytes())
        )
        assert second.columns.ids == ["r2", "r3", "r19", "t0"]
        assert second.columns.documents == [None, "new", None, None]


async def test_the_second_phase_finds_each_record_once_however_many_parts_its_positions_lie_in(
    valkey_server: RedisServer, keys: Keys, tmp_path: Path
) -> None:
    async with open_world(valkey_server.url, keys, tmp_path) as world:
        for rows in (range(3000), range(3000, 3050)):
            await world.write([Operation(Op.ADD, f"r{i}", (float(i),) * DIMENSION) for i in rows])
            await world.compact()
        first = await world.worker.get(get_request(world, as_of=None, explain=True))
        assert first.explanation is not None
        assert first.explanation.segments == 2
        positions = np.frombuffer(first.inserted, "<i8")
        for begin, end in ((0, 3050), (2990, 3010), (2999, 3001), (3000, 3020)):
            part = get_request(world, as_of=first.position, inserted=positions[begin:end].astype("<i8").tobytes())
            assert (await world.worker.get(part)).columns.ids == first.columns.ids[begin:end]


async def test_reads_of_several_shards_together_hold_every_record_once(
    valkey_server: RedisServer, keys: Keys, tmp_path: Path
) -> None:
    random_ = random.Random(7)
    async with open_world(valkey_server.url, keys, tmp_path, shards=3) as world:
        for number in range(6):
            await world.write([_operation(random_, 60) for _ in range(50)])
            if number % 2:
                await world.compact()
        found: list[str] = []
        for number in range(3):
            request = messages.GetRequest(world.shard(number), Selection())
            answer = await world.worker.get(request)
            inserted = np.frombuffer(answer.inserted, "<i8").tolist()
            assert inserted == sorted(inserted)
            assert answer.position == world.head
            found += answer.columns.ids
        assert sorted(found) == sorted(world.state)


async def test_a_collection_that_was_never_written_to_is_empty(
    valkey_server: RedisServer, keys: Keys, tmp_path: Path
) -> None:
    async with open_world(valkey_server.url, keys, tmp_path) as world:
        await assert_get(world, {})
        answer = await world.worker.query(query_request(world, [(1.0, 2.0)], 5))
        assert (answer.counts, answer.columns.ids) == ([0], [])
        await world.write([Operation(Op.UPDATE, "nobody", (1.0, 2.0))])
        await assert_get(world, {})


async def test_a_query_of_another_width_is_refused_in_the_contracts_words(
    valkey_server: RedisServer, keys: Keys, tmp_path: Path
) -> None:
    async with open_world(valkey_server.url, keys, tmp_path) as world:
        await world.write([Operation(Op.ADD, "a", (1.0, 2.0))])
        with pytest.raises(InvalidArgument, match="expecting embedding with dimension of 2, got 3"):
            await world.worker.query(query_request(world, [(1.0, 2.0, 3.0)], 5))


async def test_several_queries_at_once_and_a_k_beyond_everything(
    valkey_server: RedisServer, keys: Keys, tmp_path: Path
) -> None:
    async with open_world(valkey_server.url, keys, tmp_path) as world:
        await world.write([Operation(Op.ADD, f"r{i}", (float(i), 0.0)) for i in range(10)])
        await world.compact()
        await world.write([Operation(Op.ADD, "t", (4.5, 0.0))])
        answer = await world.worker.query(query_request(world, [(0.0, 0.0), (9.0, 0.0), (4.5, 0.0)], 2**32 - 1))
        assert answer.counts == [11, 11, 11]
        ids = answer.columns.ids
        assert (ids[0], ids[11], ids[22:25]) == ("r0", "r9", ["t", "r4", "r5"])  # equal distances: the older first
        assert len(shown(answer.columns)[4]) == 33
        none = await world.worker.query(query_request(world, [(0.0, 0.0)], 0))
        assert (none.counts, none.columns.ids, none.columns.documents) == ([0], [], [])


async def test_conditions_on_ids_and_metadata_intersect_across_segment_and_tail(
    valkey_server: RedisServer, keys: Keys, tmp_path: Path
) -> None:
    async with open_world(valkey_server.url, keys, tmp_path) as world:
        await world.write([Operation(Op.ADD, f"r{i}", (float(i), 0.0), metadata={"n": i}) for i in range(100)])
        await world.compact()
        await world.write([Operation(Op.UPDATE, f"r{i}", metadata={"n": 1000}) for i in range(0, 100, 10)])
        few = All([MetadataCompare("n", Compare.LT, 50), IdIn(["r1", "r10", "r2", "r99"])])
        answer = await world.worker.get(get_request(world, Selection(where=few)))
        assert answer.columns.ids == ["r1", "r2"]
        both = Selection(ids=["r20", "r21", "r20", "x"], where=MetadataCompare("n", Compare.GTE, 21))
        assert (await world.worker.get(get_request(world, both))).columns.ids == ["r20", "r21"]
        nothing = messages.CountRequest(world.shard(), Selection(ids=[]))
        assert (await world.worker.count(nothing)).count == 0


async def test_index_only_reads_what_is_compacted_and_needs_no_log_for_it(
    valkey_server: RedisServer, keys: Keys, tmp_path: Path
) -> None:
    async with open_world(valkey_server.url, keys, tmp_path) as world:
        index_only = world.shard(read_level=ReadLevel.INDEX_ONLY)
        counted = messages.CountRequest(index_only)
        await world.write([Operation(Op.ADD, "a", (1.0, 2.0)), Operation(Op.ADD, "b", (3.0, 4.0), "old")])
        assert (await world.worker.count(counted)).count == 0
        await world.compact()
        assert (await world.worker.count(counted)).count == 2, "compacted, and not loaded yet"
        await world.load_newest_manifests()
        await world.write([Operation(Op.DELETE, "a"), Operation(Op.UPDATE, "b", document="new")])
        assert (await world.worker.count(messages.CountRequest(world.shard()))).count == 1
        assert (await world.worker.count(counted)).count == 2
        world.worker.log.open.clear()
        assert (await world.worker.count(counted)).count == 2
        found = await world.worker.get(messages.GetRequest(index_only, documents=True))
        assert (found.columns.ids, found.columns.documents) == (["a", "b"], [None, "old"])
        nearest = query_request(world, [(1.0, 2.0)], 5)
        nearest = msgspec.structs.replace(nearest, shard=index_only)
        assert (await world.worker.query(nearest)).columns.ids == ["a", "b"]
        world.worker.log.open.set()
        await world.compact()
        assert (await world.worker.count(counted)).count == 1
        assert (await world.worker.get(messages.GetRequest(index_only, documents=True))).columns.documents == ["new"]


async def test_with_the_include_list_of_a_client_the_answer_is_the_body_it_gets(
    valkey_server: RedisServer, keys: Keys, tmp_path: Path
) -> None:
    async with open_world(valkey_server.url, keys, tmp_path) as world:
        await world.write([Operation(Op.ADD, f"r{i}", (float(i), 0.0, 0.0, 0.0), f"d{i}", {"n": i}) for i in range(4)])
        get = get_request(world, limit=2, include=[Include.METADATAS, Include.EMBEDDINGS])
        assert orjson.loads(await world.worker.body("get", get)) == {
            "ids": ["r0", "r1"],
            "embeddings": [[0.0, 0.0, 0.0, 0.0], [1.0, 0.0, 0.0, 0.0]],
            "documents": None,
            "uris": None,
            "metadatas": [{"n": 0}, {"n": 1}],
            "include": ["metadatas", "embeddings"],
        }
        query = query_request(world, [(3.0, 0.0, 0.0, 0.0), (0.0, 0.0, 0.0, 0.0)], 1)
        body = await world.worker.body("query", msgspec.structs.replace(query, include=[Include.DISTANCES]))
        assert orjson.loads(body) == {
            "ids": [["r3"], ["r0"]],
            "embeddings": None,
            "documents": None,
            "uris": None,
            "metadatas": None,
            "distances": [[0.0], [0.0]],
            "include": ["distances"],
        }
        unknown = query_request(world, [(0.0, 0.0, 0.0, 0.0)], 1, selection=Selection(ids=["nobody"]))
        with pytest.raises(InvalidArgument, match="Error finding id"):
            await world.worker.body("query", msgspec.structs.replace(unknown, include=[]))


async def test_a_shard_that_is_prefetched_is_in_memory_before_it_is_read(
    valkey_server: RedisServer, keys: Keys, tmp_path: Path
) -> None:
    async with open_world(valkey_server.url, keys, tmp_path) as world:
        await world.write([Operation(Op.ADD, f"r{n}", (1.0, float(n))) for n in range(5)])
        await world.compact()
        prefetch = messages.PrefetchRequest(messages.Shard(world.collection, 0, ReadLevel.INDEX_ONLY))
        for _ in range(2):
            assert await world.worker.body("prefetch", prefetch) == b""
        assert world.worker.shards._shards[world.collection, 0].views.bytes > 0
