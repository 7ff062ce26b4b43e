"""The reads of a collection: count, get, query, search. Everything that a handler needs to execute a read.

A read goes to the shards that the collection's row names. When a worker finds that the collection has other shards by
now, the read is repeated with the current row; that happens here and nowhere else. Likewise it is here that a read of
several shards gets the one position as of which it reads all of them (`frontend.read.consistency`). A read of a single
shard needs none: it is as of the moment of that worker's currency check.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, TypeVar

import msgspec

from frontend.collections.current_row import with_current_row
from frontend.read import gets, queries
from frontend.read.consistency import consistent, consistent_compacted
from frontend.read.searching import search_body
from frontend.read.shards import ask_all_shards, first_shard
from shared.records.model import ReadLevel
from shared.records.selection import Selection
from shared.rpc.messages import CountRequest

if TYPE_CHECKING:
    from frontend.collections.row_cache import RowCache
    from frontend.http.responses import Body, EncodedBody
    from frontend.read.workers import Workers
    from shared.catalog import Collection
    from shared.log.log import Log
    from shared.search.model import Searches

Result = TypeVar("Result")


class Reader:
    """Reads collections through the query workers.

    All methods take the collection as its row says it is, possibly outdated, and raise Gone or NotFound when it was
    deleted, and Unavailable or DeadlineExceeded when no worker answers.
    """

    def __init__(self, workers: Workers, rows: RowCache, log: Log) -> None:
        self._workers = workers
        self._rows = rows
        self._log = log

    async def count(self, collection: Collection, read_level: ReadLevel, past_position: int | None = None) -> int:
        """The number of records; as of a position of the past, or (None) as of now. Raises StaleRead when the
        collection cannot be read as of it.
        """

        async def count(current: Collection, as_of: int | None) -> int:
            answers = await ask_all_shards(
                current,
                lambda shard: self._workers.count(CountRequest(shard)),
                first_shard(current, read_level, as_of, past=past_position is not None),
            )
            return sum(answer.count for answer in answers)

        return await self._at_one_position(collection, count, read_level, past_position)

    async def get(self, collection: Collection, get: gets.Get) -> EncodedBody:
        """The body of the answer as a whole. Raises StaleRead when the collection cannot be read as of `get.as_of`."""
        return await self._get(collection, get, gets.get_body)

    async def get_chunks(self, collection: Collection, get: gets.Get) -> Body:
        """The body of the answer, in chunks when it is long."""
        return await self._get(collection, get, gets.get_chunks)

    async def matching_ids(self, collection: Collection, selection: Selection, limit: int | None) -> list[str]:
        """Ids of the first `limit` records that the selection matches, in the order of insertion."""
        return await self._at_one_position(
            collection,
            lambda current, as_of: gets.matching_ids(self._workers, current, selection, limit, as_of),
        )

    async def query(self, collection: Collection, query: queries.Query) -> Body:
        """The body of the answer, in chunks when it is long. Raises InvalidArgument when the query is restricted to ids
        of which none exists.
        """
        return await self._at_one_position(
            collection,
            lambda current, as_of: queries.query_body(
                self._workers, current, msgspec.structs.replace(query, as_of=as_of)
            ),
            query.read_level,
            query.as_of,
        )

    async def search(self, collection: Collection, searches: Searches) -> Body:
        """The body of the answer, in chunks when it is long. Raises InvalidArgument for a vector of another dimension
        than the collection's.
        """
        return await self._at_one_position(
            collection,
            lambda current, as_of: search_body(self._workers, current, msgspec.structs.replace(searches, as_of=as_of)),
            searches.read_level,
            searches.as_of,
        )

    async def _get(
        self,
        collection: Collection,
        get: gets.Get,
        answer: Callable[[Workers, Collection, gets.Get], Awaitable[Result]],
    ) -> Result:
        return await self._at_one_position(
            collection,
            lambda current, as_of: answer(self._workers, current, msgspec.structs.replace(get, as_of=as_of)),
            as_of=get.as_of,
        )

    async def _at_one_position(
        self,
        collection: Collection,
        read: Callable[[Collection, int | None], Awaitable[Result]],
        read_level: ReadLevel = ReadLevel.INDEX_AND_WAL,
        as_of: int | None = None,
    ) -> Result:
        """The result of `read(row, position)`, by the current row of the collection. The position is `as_of` where that
        is given, else one for all shards, or None where each shard answers as of a position of its own.
        """

        async def read_by(current: Collection) -> Result:
            if as_of is not None or current.shards == 1:
                return await read(current, as_of)
            if read_level is ReadLevel.INDEX_ONLY:
                return await consistent_compacted(
                    self._log, current.id, current.layout, lambda position: read(current, position)
                )
            return await consistent(self._log, current.id, lambda position: read(current, position))

        return await with_current_row(self._rows, collection, read_by)
