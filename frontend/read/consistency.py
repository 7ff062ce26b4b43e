"""Reads of several shards, or of several steps, that have to see one state of a collection.

The head of the log is read first: every write that was acknowledged before is below it. Then everything is read as of
exactly that position, whichever workers answer. A worker that has the position needs no currency check of its own, so
that this one round trip takes the place of one for each shard.

A worker cannot read as of a position when the shard was compacted since and it begins with that manifest (StaleRead):
then the whole read begins anew.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Final, TypeVar

from shared.errors import StaleRead, Unavailable

if TYPE_CHECKING:
    from shared.log.log import Log

Result = TypeVar("Result")

ATTEMPTS_MAX: Final = 5
"""Times that a read is begun, at most."""


async def consistent(log: Log, collection_id: str, read: Callable[[int], Awaitable[Result]]) -> Result:
    """The result of `read(position)`, as of a head of the collection at a moment of this call; begun anew, with the
    head as it is then, each time that it raises StaleRead. Raises what `read` does, Gone, and Unavailable when the
    collection was compacted during every attempt.
    """
    for _ in range(ATTEMPTS_MAX):
        head = (await log.readable(collection_id))[-1]
        try:
            return await read(head)
        except StaleRead:
            continue
    raise Unavailable("The collection changed too fast for a consistent read; try again")
