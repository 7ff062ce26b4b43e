"""Work on a collection by its cached row, begun anew with the current row when the cached one is outdated.

This is the one place where a stale row is noticed and read again. Whatever checks the collection's own state (an
append, a read of a worker) raises StaleGeneration when the row that the request was made by is no longer true.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Final, TypeVar

from frontend.collections.row_cache import RowCache
from shared.catalog import Collection
from shared.errors import StaleGeneration

Result = TypeVar("Result")

STALE_ROWS_MAX: Final = 3
"""Times that the row is read again within one request, at most."""


async def with_current_row(
    rows: RowCache, collection: Collection, work: Callable[[Collection], Awaitable[Result]]
) -> Result:
    """The result of `work(collection)`, repeated with the row as it is now each time that it raises StaleGeneration.
    Raises what `work` does, StaleGeneration after STALE_ROWS_MAX repetitions, and NotFound for a collection that was
    deleted in between.
    """
    for _ in range(STALE_ROWS_MAX):
        try:
            return await work(collection)
        except StaleGeneration:
            collection = await rows.refresh(collection)
    return await work(collection)
