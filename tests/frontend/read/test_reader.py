"""Reads by a row that may be outdated."""

from __future__ import annotations

import json
from typing import Any

import pytest

from frontend.read.consistency import ATTEMPTS_MAX
from frontend.read.gets import Get, Page
from frontend.read.reader import Reader
from shared.errors import Gone, NotFound, StaleGeneration, StaleRead, Unavailable
from shared.records.include import GET_DEFAULT, Wanted
from shared.records.model import ReadLevel
from shared.records.selection import Selection
from tests.frontend.fakes import FakeLog, FakeRows, FakeWorkers, Row, new_collection

GET = Get(Selection(), Page(), Wanted(()))
PAGE = Get(Selection(), Page(1, 2), Wanted(GET_DEFAULT, explain=True))


def three_shards() -> Any:
    return FakeWorkers([[Row(i, (i, 0)) for i in range(1, 10) if i % 3 == shard] for shard in range(3)])


def reader_of(workers: Any, rows: Any, log: Any = None) -> Reader:
    found: Any = log or FakeLog()
    return Reader(workers, rows, found)


async def got(workers: Any, get: Get, log: Any = None) -> dict[str, Any]:
    """The answer to a get of three shards."""
    collection = new_collection(shards=3)
    body = await reader_of(workers, FakeRows(collection), log).get(collection, get)
    answer: dict[str, Any] = json.loads(bytes(body))
    return answer


async def test_counts_of_all_shards_are_added() -> None:
    workers, collection = three_shards(), new_collection(shards=3)
    assert await reader_of(workers, FakeRows(collection)).count(collection, ReadLevel.INDEX_ONLY) == 9
    assert {request.shard.read_level for request in workers.asked} == {ReadLevel.INDEX_ONLY}
    assert [request.shard.shard for request in workers.asked] == [0, 1, 2]


async def test_a_collection_that_has_other_shards_by_now_is_read_by_its_current_row() -> None:
    workers, cached, current = three_shards(), new_collection(shards=1), new_collection(shards=3)
    workers.failures = [StaleGeneration("rebuilt")]
    rows = FakeRows(cached, current)
    assert json.loads(bytes(await reader_of(workers, rows).get(cached, GET)))["ids"] == [f"id{i}" for i in range(1, 10)]
    assert rows.refreshed == 1


async def test_a_collection_deleted_while_its_row_was_outdated_is_not_found() -> None:
    workers, cached = three_shards(), new_collection(shards=1)
    workers.failures = [StaleGeneration("rebuilt")]
    with pytest.raises(NotFound):
        await reader_of(workers, FakeRows(cached, None)).get(cached, GET)


async def test_other_failures_are_not_tried_again() -> None:
    workers, collection = three_shards(), new_collection(shards=1)
    workers.failures = [Gone("deleted")]
    with pytest.raises(Gone):
        await reader_of(workers, FakeRows(collection, collection)).get(collection, GET)
    assert len(workers.asked) == 1


async def test_all_shards_are_read_as_of_the_head_of_the_log() -> None:
    workers = three_shards()
    await got(workers, GET, FakeLog(positions=[range(43), range(99)]))
    assert [request.shard.as_of for request in workers.asked] == [42] * 3


async def test_both_phases_of_a_page_are_read_as_of_the_same_position() -> None:
    workers = three_shards()
    await got(workers, PAGE)
    assert {request.shard.as_of for request in workers.asked} == {100}
    assert len(workers.asked) > 3


async def test_a_single_shard_is_read_as_of_now_without_a_look_at_the_log() -> None:
    workers: Any = FakeWorkers([[Row(1, (1, 0))]])
    collection = new_collection(shards=1)
    await reader_of(workers, FakeRows(collection), object()).get(collection, GET)
    assert workers.asked[0].shard.as_of is None


async def test_what_is_compacted_is_read_as_of_the_position_of_the_shard_that_is_the_furthest() -> None:
    workers, collection = three_shards(), new_collection(shards=3)
    await reader_of(workers, FakeRows(collection), FakeLog(compacted=[51])).count(collection, ReadLevel.INDEX_ONLY)
    assert [request.shard.as_of for request in workers.asked] == [51] * 3


async def test_what_is_compacted_is_read_as_of_a_position_of_each_shard_while_the_log_does_not_answer() -> None:
    workers, collection = three_shards(), new_collection(shards=3)
    log = FakeLog(failures=[Unavailable("away")])
    await reader_of(workers, FakeRows(collection), log).count(collection, ReadLevel.INDEX_ONLY)
    assert [request.shard.as_of for request in workers.asked] == [None] * 3


async def test_a_read_as_of_a_position_that_some_shard_cannot_serve_begins_anew_with_the_head_of_then() -> None:
    workers = three_shards()
    workers.failures = [StaleRead("compacted")]
    answer = await got(workers, PAGE, FakeLog(positions=[range(43), range(99)]))
    assert answer["ids"] == ["id2", "id3"]
    assert {request.shard.as_of for request in workers.asked[-5:]} == {98}
    assert [explanation["shard"] for explanation in answer["explain"]] == [0, 1, 2, 0, 2]


async def test_a_read_is_not_begun_anew_for_ever() -> None:
    workers = three_shards()
    workers.failures = [StaleRead("compacted") for _ in range(100)]
    with pytest.raises(Unavailable):
        await got(workers, PAGE)
    assert len([request for request in workers.asked if request.shard.shard == 0]) == ATTEMPTS_MAX


async def test_a_read_as_of_a_given_position_is_stale_at_once() -> None:
    workers = three_shards()
    workers.failures = [StaleRead("compacted")]
    with pytest.raises(StaleRead):
        await got(workers, Get(Selection(), Page(), Wanted(()), as_of=42))
    assert {request.shard.as_of for request in workers.asked} == {42}
