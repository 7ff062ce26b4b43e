"""Reads by a row that may be outdated."""

from __future__ import annotations

import json
from typing import Any

import pytest

from frontend.read.gets import Get, Page
from frontend.read.reader import Reader
from shared.errors import Gone, NotFound, StaleGeneration
from shared.records.include import Wanted
from shared.records.model import ReadLevel
from shared.records.selection import Selection
from tests.frontend.fakes import FakeRows, FakeWorkers, Row, new_collection

GET = Get(Selection(), Page(), Wanted(()))


def three_shards() -> Any:
    return FakeWorkers([[Row(i, (i, 0)) for i in range(1, 10) if i % 3 == shard] for shard in range(3)])


def reader_of(workers: Any, rows: Any) -> Reader:
    return Reader(workers, rows)


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
