"""The reads of a collection: count, get, query, search. Everything that a handler needs to execute a read.

A read goes to the shards that the collection's row names. When a worker finds that the collection has other shards by
now, the read is repeated with the current row; that happens here and nowhere else.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from frontend.collections.current_row import with_current_row
from frontend.read import gets, queries
from frontend.read.searching import search_body
from frontend.read.shards import ask_all_shards
from shared.records.model import ReadLevel
from shared.records.selection import Selection
from shared.rpc.messages import CountRequest

if TYPE_CHECKING:
    from frontend.collections.row_cache import RowCache
    from frontend.http.responses import Body, EncodedBody
    from frontend.read.workers import Workers
    from shared.catalog import Collection
    from shared.search.model import Searches


class Reader:
    """Reads collections through the query workers.

    All methods take the collection as its row says it is, possibly outdated, and raise Gone or NotFound when it was
    deleted, and Unavailable or DeadlineExceeded when no worker answers.
    """

    def __init__(self, workers: Workers, rows: RowCache) -> None:
        self._workers = workers
        self._rows = rows

    async def count(self, collection: Collection, read_level: ReadLevel) -> int:
        """The number of records."""
        return await with_current_row(self._rows, collection, lambda current: self._count(current, read_level))

    async def _count(self, collection: Collection, read_level: ReadLevel) -> int:
        answers = await ask_all_shards(collection, lambda shard: self._workers.count(CountRequest(shard)), read_level)
        return sum(answer.count for answer in answers)

    async def get(self, collection: Collection, get: gets.Get) -> EncodedBody:
        """The body of the answer as a whole. Raises StaleRead when the collection cannot be read as of `get.as_of`."""
        return await with_current_row(
            self._rows, collection, lambda current: gets.get_body(self._workers, current, get)
        )

    async def get_chunks(self, collection: Collection, get: gets.Get) -> Body:
        """The body of the answer, in chunks when it is long."""
        return await with_current_row(
            self._rows, collection, lambda current: gets.get_chunks(self._workers, current, get)
        )

    async def matching_ids(self, collection: Collection, selection: Selection, limit: int | None) -> list[str]:
        """Ids of the first `limit` records that the selection matches, in the order of insertion."""
        return await with_current_row(
            self._rows, collection, lambda current: gets.matching_ids(self._workers, current, selection, limit)
        )

    async def query(self, collection: Collection, query: queries.Query) -> Body:
        """The body of the answer, in chunks when it is long. Raises InvalidArgument when the query is restricted to ids
        of which none exists.
        """
        return await with_current_row(
            self._rows, collection, lambda current: queries.query_body(self._workers, current, query)
        )

    async def search(self, collection: Collection, searches: Searches) -> Body:
        """The body of the answer, in chunks when it is long. Raises InvalidArgument for a vector of another dimension
        than the collection's.
        """
        return await with_current_row(
            self._rows, collection, lambda current: search_body(self._workers, current, searches)
        )
