"""The work that a thread does for somebody: until when it is worth doing, and how much memory it may take.

A thread cannot be interrupted, so code that computes for long calls `check` between its steps, at least each 50 ms of
computing: it raises when the deadline has passed or nobody waits for the result any more. Likewise it calls `claim`
before it builds something large. Which work the thread does is ambient (a context variable), because results that are
computed for one request are shared with others: what resolves a filter, say, has to look at the request that it is
resolved for now. Without any work, as on an event loop, `check` and `claim` do nothing.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Iterator
from contextvars import ContextVar, Token
from typing import Final, Protocol, TypeVar

from shared.errors import DeadlineExceeded, LimitExceeded

Item = TypeVar("Item")
Result = TypeVar("Result")

CHECKED_ITEMS: Final = 1024
"""Items of a loop in Python between two checks: about a millisecond."""

UNCOUNTED_BYTES: Final = 1024 * 1024
"""Claims of one work up to this total are not counted against what all have: nearly all requests stay below."""


class Cancelled(Exception):
    """Nobody waits for the result of the work any more."""


class WorkMemory(Protocol):
    """The memory that all work of a process may take."""

    request_bytes_max: int
    """Bytes that one work may claim."""

    def take(self, size: int) -> None:
        """Counts so many bytes more. Raises Backoff when others hold too much at present."""

    def give_back(self, size: int) -> None:
        """Counts bytes out that were taken."""


def _never() -> bool:
    return False


class Work:
    """A piece of work in a thread. `deadline_s` is in the time of `time.monotonic`, as that of event loops;
    `given_up()` says, to any thread, whether nobody waits for the result any more. `rows_scanned` and `bytes_scanned`
    are what was looked at for it.
    """

    __slots__ = ("_claimed", "_counted", "_deadline_s", "_given_up", "_memory", "bytes_scanned", "rows_scanned")

    def __init__(
        self,
        deadline_s: float = math.inf,
        given_up: Callable[[], bool] = _never,
        memory: WorkMemory | None = None,
    ) -> None:
        self._deadline_s = deadline_s
        self._given_up = given_up
        self._memory = memory
        self._claimed = self._counted = 0
        self.rows_scanned = 0
        self.bytes_scanned = 0

    def check(self) -> None:
        """Raises Cancelled or DeadlineExceeded when the work is not worth going on with. Takes less than a
        microsecond.
        """
        if self._given_up():
            raise Cancelled
        if time.monotonic() >= self._deadline_s:
            raise DeadlineExceeded("deadline exceeded")

    def claim(self, size: int) -> None:
        """About `size` bytes more are going to be built, and stay until the work ends. Raises LimitExceeded when that
        is more than one request may take, and Backoff when others hold too much.
        """
        memory = self._memory
        if memory is None:
            return
        self._claimed += size
        if self._claimed > memory.request_bytes_max:
            raise LimitExceeded("bytes of memory", self._claimed, memory.request_bytes_max, "work and answer")
        uncounted = self._claimed - self._counted
        if uncounted >= UNCOUNTED_BYTES:
            memory.take(uncounted)
            self._counted = self._claimed

    def do(self, work: Callable[[], Result]) -> Result:
        """The result of `work()`, for which this is the work of the thread. Afterwards its memory is given back."""
        token: Token[Work | None] = _current.set(self)
        try:
            return work()
        finally:
            _current.reset(token)
            if self._counted and self._memory is not None:
                self._memory.give_back(self._counted)
            self._claimed = self._counted = 0


_current: Final[ContextVar[Work | None]] = ContextVar("work", default=None)


def check() -> None:
    """`Work.check` of what this thread works on."""
    current = _current.get()
    if current is not None:
        current.check()


def claim(size: int) -> None:
    """`Work.claim` for what this thread works on."""
    current = _current.get()
    if current is not None:
        current.claim(size)


def scanned(rows: int, size: int = 0) -> None:
    """Counts rows, and bytes of theirs, that this thread looks at for its work: for the accounting of usage."""
    current = _current.get()
    if current is not None:
        current.rows_scanned += rows
        current.bytes_scanned += size


def checked(items: Iterable[Item]) -> Iterator[Item]:
    """The items, with a check before every CHECKED_ITEMS of them."""
    current = _current.get()
    if current is None:
        yield from items
        return
    left = 0
    for item in items:
        if not left:
            current.check()
            left = CHECKED_ITEMS
        left -= 1
        yield item
