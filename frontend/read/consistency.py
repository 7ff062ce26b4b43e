"""Reads of several shards, or of several steps, that have to see one state of a collection.

The head of the log is read first: every write that was acknowledged before is below it. Then everything is read as of
exactly that position, whichever workers answer. A worker that has the position needs no currency check of its own, so
that this one round trip takes the place of one for each shard. A read of what is compacted takes the position up to
which the shard is compacted that is the furthest, in the place of the head: the others are on their way there.

A worker cannot read as of a position when the shard was compacted since and it begins with that manifest (StaleRead):
then the whole read begins anew.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Final, TypeVar

from shared.errors import Damaged, StaleRead, Unavailable

if TYPE_CHECKING:
    from shared.cluster.placement import Layout
    from shared.log.log import Log

Result = TypeVar("Result")
Position = TypeVar("Position", int, int | None)

ATTEMPTS_MAX: Final = 5
"""Times that a read is begun, at most."""

COMPACTED_WAIT_S: Final = 0.25
"""Time that a read of what is compacted waits for the log to say up to where that is, in seconds."""


async def consistent(log: Log, collection_id: str, read: Callable[[int], Awaitable[Result]]) -> Result:
    """The result of `read(position)`, as of a head of the collection at a moment of this call; begun anew, with the
    head as it is then, each time that it raises StaleRead. Raises what `read` does, Gone, and Unavailable when the
    collection was compacted during every attempt.
    """

    async def head() -> int:
        return (await log.readable(collection_id))[-1]

    return await _at_one_position(head, read)


async def consistent_compacted(
    log: Log, collection_id: str, layout: Layout, read: Callable[[int | None], Awaitable[Result]]
) -> Result:
    """The result of `read(position)`, as of a position to which a shard of the layout is compacted at a moment of this
    call. When the log does not say it within COMPACTED_WAIT_S, or a shard's is damaged before it, of `read(None)`,
    which each shard answers as of what it has. Raises as `consistent`, and StaleGeneration when the collection has
    another layout.
    """

    async def compacted() -> int | None:
        try:
            async with asyncio.timeout(COMPACTED_WAIT_S):
                return await log.compacted_to(collection_id, layout)
        except (TimeoutError, Unavailable):
            return None

    try:
        return await _at_one_position(compacted, read)
    except Damaged:
        return await read(None)


async def _at_one_position(
    position: Callable[[], Awaitable[Position]], read: Callable[[Position], Awaitable[Result]]
) -> Result:
    for _ in range(ATTEMPTS_MAX):
        current = await position()
        try:
            return await read(current)
        except StaleRead:
            continue
    raise Unavailable("The collection changed too fast for a consistent read; try again")
