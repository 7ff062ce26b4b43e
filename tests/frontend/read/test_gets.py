from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

from frontend.read.gets import Get, Page, get_body, matching_ids
from shared.errors import StaleRead
from shared.records.include import GET_DEFAULT, Wanted
from shared.records.model import Include
from shared.records.selection import Selection
from tests.frontend.fakes import FakeWorkers, Row, new_collection

ALL = Selection()
COLUMNS = Wanted(GET_DEFAULT)


def three_shards() -> FakeWorkers:
    """Rows 1 to 9 over three shards."""
    return FakeWorkers([[Row(i, (i, 0)) for i in range(1, 10) if i % 3 == shard] for shard in range(3)])


async def got(workers: Any, page: Page, wanted: Wanted, shards: int, as_of: int | None = None) -> dict[str, Any]:
    body = await get_body(workers, new_collection(shards=shards), Get(ALL, page, wanted, as_of))
    answer: dict[str, Any] = json.loads(bytes(body))
    return answer


async def ids_of(workers: Any, page: Page, wanted: Wanted = COLUMNS) -> list[str]:
    found: list[str] = (await got(workers, page, wanted, shards=3))["ids"]
    return found


@pytest.mark.parametrize("page", [Page(0, 4), Page(2, 3), Page(8, 5), Page(9, 5), Page(0, 0), Page(3), Page()])
@pytest.mark.parametrize("wanted", [COLUMNS, Wanted(())])
async def test_a_page_over_shards_is_the_same_as_over_one(page: Page, wanted: Wanted) -> None:
    expected = [f"id{i}" for i in range(1, 10)][page.offset :]
    assert await ids_of(three_shards(), page, wanted) == (expected if page.limit is None else expected[: page.limit])


async def test_the_second_phase_asks_for_exactly_the_page_as_of_the_first() -> None:
    workers = three_shards()
    answer = await got(workers, Page(1, 2), COLUMNS, shards=3)
    assert answer["documents"] == ["d2", "d3"]
    first, second = workers.asked[:3], workers.asked[3:]
    assert all(not request.ids and not request.documents and request.limit == 3 for request in first)
    assert [(request.shard.shard, request.shard.as_of) for request in second] == [(0, 100), (2, 100)]
    assert [np.frombuffer(request.inserted, dtype="<i8").tolist() for request in second] == [[3], [2]]


async def test_a_page_whose_position_cannot_be_read_any_more_is_stale() -> None:
    workers = three_shards()
    workers.failures = [StaleRead("compacted")]
    with pytest.raises(StaleRead):
        await got(workers, Page(0, 3), COLUMNS, shards=3, as_of=42)


async def test_a_single_shard_is_asked_once_for_exactly_the_page() -> None:
    workers = FakeWorkers([[Row(i, (i, 0)) for i in range(1, 10)]])
    answer = await got(workers, Page(2, 3), COLUMNS, shards=1)
    assert answer["ids"] == ["id3", "id4", "id5"]
    assert [(request.offset, request.limit, request.include) for request in workers.asked] == [
        (2, 3, ["documents", "metadatas"])
    ]


async def test_metadata_is_never_asked_for_without_the_uri() -> None:
    workers = three_shards()
    await got(workers, Page(), Wanted([Include.METADATAS]), shards=3)
    assert all(request.uris and not request.documents for request in workers.asked)


async def test_matching_ids_are_the_first_in_insertion_order() -> None:
    workers: Any = three_shards()
    selection = Selection(ids=["id9", "id2", "id4", "nope"])
    assert await matching_ids(workers, new_collection(shards=3), selection, 2) == ["id2", "id4"]
    assert await matching_ids(workers, new_collection(shards=3), selection, None) == ["id2", "id4", "id9"]


async def test_every_answer_of_a_worker_is_explained_and_nothing_else_changes() -> None:
    explained = Wanted(GET_DEFAULT, explain=True)
    plain = await got(three_shards(), Page(1, 2), COLUMNS, shards=3)
    answer = await got(three_shards(), Page(1, 2), explained, shards=3)
    assert [explanation["shard"] for explanation in answer.pop("explain")] == [0, 1, 2, 0, 2]
    assert answer == plain
    one = await got(FakeWorkers([[Row(1, (1, 0))]]), Page(), explained, shards=1)
    assert one.pop("explain") == [
        {"shard": 0, "position": 100, "segments": 1, "tail_rows": 0, "parts": [], "milliseconds": {"filter": 0.5},
         "worker": "w"}
    ]  # fmt: skip
    assert one == await got(FakeWorkers([[Row(1, (1, 0))]]), Page(), COLUMNS, shards=1)
