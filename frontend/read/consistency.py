"""Reads of several steps that have to see one state of a collection.

A step says as of which position it was made, and the later ones ask for that position. A worker that cannot read as of
it any more, because the shard was compacted in between, raises StaleRead: then the whole read begins anew.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Final, TypeVar

from shared.errors import StaleRead, Unavailable

Result = TypeVar("Result")

ATTEMPTS_MAX: Final = 5
"""Times that a read is begun, at most."""


async def consistent(read: Callable[[], Awaitable[Result]]) -> Result:
    """The result of `read`, begun anew each time that it raises StaleRead. Raises what `read` does, and Unavailable
    when the collection changed during every attempt.
    """
    for _ in range(ATTEMPTS_MAX):
        try:
            return await read()
        except StaleRead:
            continue
    raise Unavailable("The collection changed too fast for a consistent read; try again")
