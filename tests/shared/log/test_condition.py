"""Appends on condition that what was read has not been written since."""

import asyncio
import random
import uuid

import numpy as np
import pytest
from redis.asyncio import Redis

from shared.catalog import Catalog, Collection, Database
from shared.cluster.placement import Layout, shard_of
from shared.errors import ConditionalWriteConflict, Gone, StaleGeneration
from shared.log.append import Appended
from shared.log.batch import _encode, build_batch, split_batch
from shared.log.condition import Condition, IdsRead, Undecided
from shared.log.lifecycle import Lifecycle
from shared.log.log import Log
from shared.log.state import Pointer
from shared.records.model import Op
from shared.redis.keys import Keys
from tests.shared.log.appending import append, append_batches, everything, make_collection
from tests.shared.log.damaging import replace_entry


@pytest.fixture
def log(redis: Redis, keys: Keys) -> Log:
    return Log(redis, keys)


def having_read(collection: Collection, ids: list[str], token: int, since: int | None = None) -> Condition:
    homes = shard_of(ids, collection.layout.count).tolist() if collection.shards > 1 else [0] * len(ids)
    by_shard: dict[int, list[str]] = {}
    for home, id_ in zip(homes, ids, strict=True):
        by_shard.setdefault(collection.layout.first + home, []).append(id_)
    return Condition(token, {shard: IdsRead(since or token, some) for shard, some in by_shard.items()})


async def commit(
    log: Log, collection: Collection, ids: list[str], condition: Condition, request_id: str | None = None
) -> Appended:
    batch = build_batch(Op.UPSERT, ids, np.zeros((len(ids), 2), dtype=np.float32))
    parts = split_batch(batch, collection.layout)
    return await append_batches(
        log,
        collection,
        parts,
        request_id=request_id,
        dimension=2,
        generation=collection.generation,
        condition=condition,
    )


@pytest.mark.parametrize("shards", [1, 3])
async def test_what_nobody_wrote_since_lets_everything_be_appended(
    catalog: Catalog, database: Database, log: Log, shards: int
) -> None:
    collection = await make_collection(catalog, database, shards=shards)
    before = await append(log, collection, ["apple", "pear", "plum"])
    await append(log, collection, ["cherry"])
    condition = having_read(collection, ["apple", "pear", "plum", "quince"], before.head)
    appended = await commit(log, collection, ["apple", "quince"], condition)
    assert (appended.first, appended.head) == (5, 7)
    assert (await everything(log, collection))[6] == "quince"


@pytest.mark.parametrize("shards", [1, 3])
async def test_an_id_that_was_written_leaves_it_undecided_and_nothing_is_appended(
    catalog: Catalog, database: Database, log: Log, shards: int
) -> None:
    collection = await make_collection(catalog, database, shards=shards)
    before = await append(log, collection, ["apple", "pear"])
    await append(log, collection, ["pear"])
    condition = having_read(collection, ["apple", "pear"], before.head)
    with pytest.raises(Undecided) as undecided:
        await commit(log, collection, ["apple"], condition)
    assert undecided.value.shards == [collection.layout.first + int(shard_of(["pear"], shards)[0])]
    assert len(await everything(log, collection)) == 3


async def test_the_log_is_looked_at_from_where_the_ids_are_known_on(
    catalog: Catalog, database: Database, log: Log
) -> None:
    collection = await make_collection(catalog, database)
    before = await append(log, collection, ["pear"])
    again = await append(log, collection, ["pear"])
    with pytest.raises(Undecided):
        await commit(log, collection, ["x"], having_read(collection, ["pear"], before.head))
    await commit(log, collection, ["x"], having_read(collection, ["pear"], before.head, again.head))
    with pytest.raises(Undecided):  # the commit before was just there
        await commit(log, collection, ["y"], having_read(collection, ["x"], before.head, again.head))


async def test_the_log_names_exactly_the_ids_that_were_written(catalog: Catalog, database: Database, log: Log) -> None:
    """Whatever else stands in the entries, and however they were cut."""
    collection = await make_collection(catalog, database)
    before = await append(log, collection, ["before"])
    random.seed(5)
    names = ["".join(random.choices("aä\0😀b ", k=random.randint(1, 6))) for _ in range(600)]
    written, others = sorted(set(names[:300])), sorted(set(names[300:]) - set(names[:300]))
    whole = build_batch(
        np.array(random.choices(list(Op), k=len(written)), np.uint8),
        written,
        np.ones((len(written) // 2, 2), np.float32),
        np.arange(len(written) // 2),
        others[: len(written)] + [None] * (len(written) - len(others)),
    )
    parts = {0: [_encode(whole.slice(start, 100)) for start in range(0, len(written), 100)]}
    await append_batches(log, collection, parts, dimension=2)
    await commit(log, collection, ["x"], having_read(collection, others, before.head))
    for id_ in written[::7]:
        with pytest.raises(Undecided):
            await commit(log, collection, ["x"], having_read(collection, [*others, id_], before.head))


async def test_what_a_manifest_covers_the_log_does_not_tell(catalog: Catalog, database: Database, log: Log) -> None:
    collection = await make_collection(catalog, database)
    before = await append(log, collection, ["apple"])
    after = await append(log, collection, ["pear"])
    assert await log.commit(collection.id, 0, None, Pointer(1, "hash", after.head), 0)
    await log.trim(collection.id, 0, Pointer(1, "hash", after.head), 0)
    with pytest.raises(Undecided):
        await commit(log, collection, ["x"], having_read(collection, ["apple"], before.head))
    await commit(log, collection, ["x"], having_read(collection, ["apple"], before.head, after.head))


async def test_many_operations_are_not_looked_at(catalog: Catalog, database: Database, log: Log) -> None:
    collection = await make_collection(catalog, database)
    before = await append(log, collection, ["apple"])
    many = await append(log, collection, [f"pear {i}" for i in range(10_001)])
    with pytest.raises(Undecided):
        await commit(log, collection, ["x"], having_read(collection, ["plum"], before.head))
    await commit(log, collection, ["x"], having_read(collection, ["plum"], before.head, many.head))


async def test_many_bytes_are_not_looked_at(catalog: Catalog, database: Database, log: Log) -> None:
    collection = await make_collection(catalog, database)
    before = await append(log, collection, ["apple"])
    for _ in range(2):
        whole = build_batch(Op.UPSERT, ["pear"], np.ones((1, 2), np.float32), documents=["x" * (33 << 20)])
        parts = {collection.layout.first: [_encode(whole)]}
        many = await append_batches(log, collection, parts, dimension=2)
    with pytest.raises(Undecided):
        await commit(log, collection, ["x"], having_read(collection, ["plum"], before.head))
    await commit(log, collection, ["x"], having_read(collection, ["plum"], before.head, many.head))


async def test_a_token_from_before_a_restoration_or_beyond_the_head_is_a_conflict(
    catalog: Catalog, database: Database, log: Log, redis: Redis, keys: Keys
) -> None:
    collection = await make_collection(catalog, database)
    before = await append(log, collection, ["apple"])
    assert await log.readable(collection.id) == range(before.head + 1)
    for token in (before.head + 1, 2**53):
        with pytest.raises(ConditionalWriteConflict):
            await commit(log, collection, ["x"], having_read(collection, ["apple"], token))
    await Lifecycle(redis, keys).raise_heads({collection.id: 1000})
    assert await log.readable(collection.id) == range(1000, 1001)
    with pytest.raises(ConditionalWriteConflict):
        await commit(log, collection, ["x"], having_read(collection, ["apple"], before.head))
    assert (await commit(log, collection, ["x"], having_read(collection, ["apple"], 1000))).first == 1000


async def test_a_commit_whose_answer_was_lost_is_not_its_own_conflict(
    catalog: Catalog, database: Database, log: Log
) -> None:
    collection = await make_collection(catalog, database)
    before = await append(log, collection, ["apple"])
    condition = having_read(collection, ["apple"], before.head)
    first = await commit(log, collection, ["apple"], condition, "r")
    assert await commit(log, collection, ["apple"], condition, "r") == first
    assert len(await everything(log, collection)) == 2


async def test_other_shards_and_a_deleted_collection_come_before_the_condition(
    catalog: Catalog, database: Database, log: Log
) -> None:
    collection = await make_collection(catalog, database)
    before = await append(log, collection, ["apple"])
    with pytest.raises(StaleGeneration):
        await commit(log, collection, ["x"], Condition(before.head, {7: IdsRead(before.head, ["apple"])}))
    assert await catalog.collections.delete(database, collection.name)
    with pytest.raises(Gone):
        await commit(log, collection, ["x"], having_read(collection, ["apple"], before.head))
    with pytest.raises(Gone):
        await log.readable(collection.id)


@pytest.mark.parametrize("shards", [1, 3])
async def test_of_racing_commits_that_read_the_same_one_wins(
    catalog: Catalog, database: Database, log: Log, shards: int
) -> None:
    collection = await make_collection(catalog, database, shards=shards)
    before = await append(log, collection, ["apple", "pear", "plum"])
    condition = having_read(collection, ["apple", "pear", "plum"], before.head)
    random.seed(shards)
    racing = [commit(log, collection, [random.choice(["apple", "pear", "plum"])], condition) for _ in range(20)]
    done = await asyncio.gather(*racing, return_exceptions=True)
    assert sum(isinstance(one, Appended) for one in done) == 1
    assert sum(isinstance(one, Undecided) for one in done) == 19
    assert len(await everything(log, collection)) == 4


async def test_a_restored_collection_can_be_read_from_its_new_head_on(redis: Redis, keys: Keys, log: Log) -> None:
    lifecycle, id_ = Lifecycle(redis, keys), str(uuid.uuid4())
    fields = {"database_key": "db", "fixed": {}, "generation": 1, "dimension": None, "layout": Layout(0, 1)}
    for head in (500, 900):
        assert await lifecycle.restore(id_, head, 1, head, pointers=[None], **fields) == head  # type: ignore[arg-type]
        assert await log.readable(id_) == range(head, head + 1)


DAMAGES = [{"d": b"garbage"}, {"d": b""}, {"n": b"0"}, {"n": b"x"}, {"p": b"0-0"}, {"h": b""}, {"gone": b""}]


@pytest.mark.parametrize("damage", [*DAMAGES, "cut", "count"])
async def test_what_a_damaged_or_missing_entry_wrote_is_in_doubt(
    catalog: Catalog, database: Database, redis: Redis, keys: Keys, log: Log, damage: dict[str, bytes] | str
) -> None:
    """The script neither fails on garbage nor believes it."""
    for number in range(2):  # as the last entry, and as one in the middle
        collection = await make_collection(catalog, database, f"c{number}")
        before = await append(log, collection, ["apple"])
        await append(log, collection, ["cherry"])
        for _ in range(number):
            await append(log, collection, ["plum"])
        entry = (await log.read(collection.id, 0)).entries[1]
        if damage == "cut":
            changed = {"d": entry.payload[:-80]}
        elif damage == "count":
            [more] = split_batch(build_batch(Op.UPSERT, ["a", "b"], np.zeros((2, 2), np.float32)), collection.layout)[0]
            changed = {"d": more.payload}
        else:
            assert isinstance(damage, dict)
            changed = damage
        await replace_entry(redis, keys.log(collection.id, 0), 1, **changed)
        with pytest.raises(Undecided):
            await commit(log, collection, ["x"], having_read(collection, ["pear"], before.head))
