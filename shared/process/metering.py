"""The meter of a request: what was done for it, for the accounting of usage.

Which meter that is is ambient (a context variable): calls to other processes, tasks that a request starts and what its
handler calls add to the same one. Without any, as in a test or in background work, nothing is counted.
"""

from __future__ import annotations

from contextvars import ContextVar
from typing import Final


class Meter:
    """The work for one request: vectors and searches that it asked for (`queries`), rows and bytes that query workers
    looked at, tokens that were embedded.
    """

    __slots__ = ("bytes_scanned", "embedding_tokens", "queries", "rows_scanned")

    def __init__(self) -> None:
        self.queries = 0
        self.rows_scanned = 0
        self.bytes_scanned = 0
        self.embedding_tokens = 0

    def scanned(self, rows: int, size: int) -> None:
        """A query worker looked at so many rows and bytes for an answer that is used."""
        self.rows_scanned += rows
        self.bytes_scanned += size


current: Final[ContextVar[Meter | None]] = ContextVar("meter", default=None)
"""The meter of the request that this task works for; None: nobody counts."""


def count_queries(count: int) -> None:
    """The request asks for so many queries or searches."""
    meter = current.get()
    if meter is not None:
        meter.queries += count


def count_tokens(count: int) -> None:
    """Texts of so many tokens were embedded for the request."""
    meter = current.get()
    if meter is not None:
        meter.embedding_tokens += count
