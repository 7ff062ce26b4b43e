from __future__ import annotations

import asyncio
from typing import Any

import pytest

from frontend.collections.current_row import STALE_ROWS_MAX
from frontend.embed.texts import TextEmbedding
from frontend.parse.writes import read_write
from frontend.write.dirty import DirtyShards
from frontend.write.writes import Writer
from shared.errors import (
    Backoff,
    DimensionMismatch,
    Gone,
    InvalidArgument,
    NotFound,
    StaleGeneration,
    Unavailable,
    UnknownOutcome,
)
from shared.records.model import Op
from tests.frontend.fakes import COLLECTION_ID, FakeJobs, new_collection, new_context

BODY: dict[str, Any] = {
    "ids": ["a", "b", "c"],
    "embeddings": [[1, 2], [3, 4], [5, 6]],
    "documents": ["x", None, ""],
    "metadatas": [{"k": 1, "chroma:h": 2}, None, {"old": "s"}],
    "uris": [None, "u", None],
}


def writer(context: Any) -> Writer:
    return Writer(context.log, context.groups, context.rows, TextEmbedding(context.embedders))


async def write(context: Any, body: dict[str, Any] = BODY, op: Op = Op.ADD) -> None:
    await writer(context).write(context.rows.collection, read_write(op, body), 0)


async def test_a_batch_becomes_one_append_of_columns() -> None:
    context = new_context(new_collection(keys=frozenset({("old", "string")})))
    await write(context)
    (append,) = context.log.appends
    assert (append.count, append.dimension, append.generation) == (3, 2, 1)
    assert append.new_keys == [("k", "int")], "hidden keys and known ones are not news"
    assert append.parts[0][0] == {
        "op": Op.ADD,
        "offset": 0,
        "id": "a",
        "document": "x",
        "metadata": '{"k":1,"chroma:h":2}',
        "uri": None,
        "embedding": [1.0, 2.0],
    }
    assert [row["metadata"] for row in append.parts[0][1:]] == [None, '{"old":"s"}']


async def test_every_row_lands_in_one_shard_with_its_place_in_the_batch() -> None:
    context = new_context(new_collection(shards=4))
    ids = [f"id{i}" for i in range(50)]
    await write(context, {"ids": ids, "embeddings": [[i] for i in range(50)]}, Op.UPSERT)
    (append,) = context.log.appends
    rows = sorted((row["offset"], row["id"], row["embedding"]) for part in append.parts.values() for row in part)
    assert rows == [(i, f"id{i}", [float(i)]) for i in range(50)]
    await context.dirty.flush()
    assert context.jobs.bundles == [[(COLLECTION_ID, shard) for shard in sorted(append.parts)]]


async def test_an_update_keeps_what_is_null() -> None:
    context = new_context(new_collection(dimension=2))
    await write(context, {"ids": ["a", "b"], "embeddings": [None, [1, 2]], "metadatas": [{"k": None}, {}]}, Op.UPDATE)
    first, second = context.log.appends[0].parts[0]
    assert (first["embedding"], first["metadata"]) == (None, '{"k":null}')
    assert (second["embedding"], second["metadata"]) == ([1.0, 2.0], None)


async def test_an_update_without_embeddings_says_nothing_of_a_dimension() -> None:
    context = new_context(new_collection())
    await write(context, {"ids": ["a"], "documents": ["x"], "embeddings": [None]}, Op.UPDATE)
    assert context.log.appends[0].dimension is None


async def test_an_empty_batch_writes_nothing() -> None:
    context = new_context(new_collection())
    await write(context, {"ids": [], "embeddings": []})
    await write(context, {"ids": []}, Op.UPDATE)
    await writer(context).delete(context.rows.collection, [])
    assert context.log.appends == []


async def test_deleted_ids_are_appended_as_they_are_named() -> None:
    context = new_context(new_collection())
    await writer(context).delete(context.rows.collection, ["a", "a", "nope"])
    (append,) = context.log.appends
    assert append.count == 3
    assert [(row["op"], row["id"]) for row in append.parts[0]] == [
        (Op.DELETE, "a"),
        (Op.DELETE, "a"),
        (Op.DELETE, "nope"),
    ]


async def test_a_write_that_fails_the_length_check_fixes_the_dimension() -> None:
    context = new_context(new_collection())
    with pytest.raises(InvalidArgument, match="Inconsistent number of IDs"):
        await write(context, {"ids": ["a", "b"], "embeddings": [[1, 2, 3]]})
    assert context.log.dimension == 3
    with pytest.raises(InvalidArgument, match="dimension of 3, got 2"):
        await write(context, {"ids": ["a", "b"], "embeddings": [[1, 2]]})
    assert context.log.appends == []


async def test_a_write_that_fails_earlier_does_not_fix_the_dimension() -> None:
    context = new_context(new_collection())
    with pytest.raises(InvalidArgument):
        await write(context, {"ids": ["a"], "embeddings": [[1, 2, 3]], "metadatas": [{"#x": 1}]})
    assert context.log.dimension is None


async def test_a_dimension_that_somebody_else_fixed_first_is_told_in_the_contracts_words() -> None:
    context = new_context(new_collection())
    context.log.failures = [DimensionMismatch("from the script", 5)]
    with pytest.raises(InvalidArgument, match=r"^Collection expecting embedding with dimension of 5, got 2$"):
        await write(context)


async def test_an_outdated_row_is_fetched_again_and_the_write_repeated_under_the_same_request_id() -> None:
    context = new_context(new_collection())
    context.rows.current = new_collection(generation=8)
    context.log.failures = [StaleGeneration("stale")]
    await write(context)
    assert [append.generation for append in context.log.appends] == [1, 8]
    assert len({append.request_id for append in context.log.appends}) == 1
    await write(context)
    assert len({append.request_id for append in context.log.appends}) == 2


async def test_a_row_that_changes_all_the_time_is_not_chased_for_ever() -> None:
    context = new_context(new_collection())
    context.log.failures = [StaleGeneration("stale") for _ in range(100)]
    with pytest.raises(StaleGeneration):
        await write(context)
    assert len(context.log.appends) == STALE_ROWS_MAX + 1


async def test_a_collection_deleted_while_its_row_was_cached_is_not_found() -> None:
    context = new_context(new_collection())
    context.rows.current = None
    context.log.failures = [StaleGeneration("stale")]
    with pytest.raises(NotFound):
        await write(context)


@pytest.mark.parametrize("error", [Gone("x"), Backoff("full"), Unavailable("away"), UnknownOutcome("lost")])
async def test_failures_of_the_log_reach_the_caller_and_mark_nothing(error: Any) -> None:
    context = new_context(new_collection())
    context.log.failures = [error]
    with pytest.raises(type(error)):
        await write(context)
    await context.dirty.flush()
    assert context.jobs.bundles == []


async def test_hints_are_bundled_while_one_bundle_is_on_its_way() -> None:
    jobs = FakeJobs()
    dirty = DirtyShards(jobs, gather_s=0)  # type: ignore[arg-type]
    for _ in range(100):
        dirty.add("c", [0, 1])
    await dirty.flush()
    dirty.add("c", [2])
    await dirty.flush()
    assert jobs.bundles == [[("c", 0), ("c", 1)], [("c", 2)]]


async def test_hints_that_redis_did_not_take_are_given_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("frontend.write.dirty.RETRY_S", 0.0)
    jobs = FakeJobs(failures=[Unavailable("away"), UnknownOutcome("lost")])
    dirty = DirtyShards(jobs, gather_s=0)  # type: ignore[arg-type]
    dirty.add("c", [0])
    await asyncio.wait_for(dirty.flush(), 5)
    assert jobs.bundles == [[("c", 0)]]
