"""Reads of a transaction: all of them as of one position, its token (docs/design/2026-11-21-transactions.md).

The first read takes the position up to which the collection can be read now as the token of the transaction; the later
ones bring it along.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec.structs import replace

from frontend.read.consistency import consistent
from shared.errors import StaleRead

if TYPE_CHECKING:
    from frontend.http.responses import EncodedBody
    from frontend.read.gets import Get
    from frontend.read.reader import Reader
    from shared.catalog import Collection
    from shared.log.log import Log


class PointInTimeReader:
    """Gets as of a position."""

    def __init__(self, log: Log, reader: Reader) -> None:
        self._log = log
        self._reader = reader

    async def get(self, collection: Collection, get: Get, token: int | None) -> tuple[EncodedBody, int]:
        """The body of the answer as of the position `token`, or as of now without one, and that position. Raises
        StaleRead when the collection cannot be read as of the token any more, and what `Reader.get` does.
        """
        if token is not None:
            return await self._get_at(collection, get, token), token

        async def get_at(now: int) -> tuple[EncodedBody, int]:
            return await self._reader.get(collection, replace(get, as_of=now)), now

        return await consistent(self._log, collection.id, get_at)

    async def _get_at(self, collection: Collection, get: Get, token: int) -> EncodedBody:
        stale = StaleRead(f"stale read: the snapshot at {token} can no longer be served; begin the transaction anew")
        try:
            answer = await self._reader.get(collection, replace(get, as_of=token))
        except StaleRead:
            raise stale from None
        # Compared afterwards, so that nothing was lost while it was read either.
        if token not in await self._log.readable(collection.id):
            raise stale
        return answer
