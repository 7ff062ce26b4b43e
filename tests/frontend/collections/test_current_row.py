from __future__ import annotations

from typing import Any

import pytest

from frontend.collections.current_row import STALE_ROWS_MAX, with_current_row
from shared.catalog import Collection
from shared.errors import NotFound, StaleGeneration
from tests.frontend.fakes import FakeRows, new_collection

CACHED, CURRENT = new_collection(generation=1), new_collection(generation=8)


class Work:
    """Refuses rows of an older generation than `generation`."""

    def __init__(self, generation: int) -> None:
        self.generation = generation
        self.tried: list[int | None] = []

    async def __call__(self, collection: Collection) -> str:
        self.tried.append(collection.generation)
        if collection.generation < self.generation:
            raise StaleGeneration("stale")
        return "done"


async def test_a_current_row_is_used_as_it_is() -> None:
    rows: Any = FakeRows(CACHED, CURRENT)
    work = Work(1)
    assert await with_current_row(rows, CACHED, work) == "done"
    assert (work.tried, rows.refreshed) == ([1], 0)


async def test_an_outdated_row_is_read_again() -> None:
    rows: Any = FakeRows(CACHED, CURRENT)
    work = Work(8)
    assert await with_current_row(rows, CACHED, work) == "done"
    assert (work.tried, rows.refreshed) == ([1, 8], 1)


async def test_a_row_that_changes_all_the_time_is_given_up() -> None:
    rows: Any = FakeRows(CACHED, CURRENT)
    work = Work(9)
    with pytest.raises(StaleGeneration):
        await with_current_row(rows, CACHED, work)
    assert len(work.tried) == STALE_ROWS_MAX + 1


async def test_a_collection_that_was_deleted_in_between_is_not_found() -> None:
    rows: Any = FakeRows(CACHED, None)
    with pytest.raises(NotFound):
        await with_current_row(rows, CACHED, Work(9))
