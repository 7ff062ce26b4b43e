"""Marks of written shards, sent to the log service. They are hints: it finds an unmarked shard as well, only later. So
a mark is sent after the client was answered, and several together.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import TYPE_CHECKING, Final

from shared.errors import Unavailable
from shared.process.telemetry import get_logger

if TYPE_CHECKING:
    from shared.log.jobs import Jobs

GATHER_S: Final = 0.1
"""Longest time, in seconds, that a mark is held back to be sent with others: a client that writes row by row costs ten
commands a second, not one per row."""

RETRY_S: Final = 1.0
"""Pause, in seconds, after Redis did not take the marks."""

log = get_logger(__name__)


class DirtyShards:
    """The shards written since marks were sent last. One batch of marks is sent at a time; shards that are added
    meanwhile are the next one.
    """

    def __init__(self, jobs: Jobs, gather_s: float = GATHER_S) -> None:
        self._jobs = jobs
        self._gather_s = gather_s
        self._waiting: set[tuple[str, int]] = set()
        self._sending: asyncio.Task[None] | None = None

    def add(self, collection_id: str, shards: Iterable[int]) -> None:
        """Marks these shards of the collection, soon."""
        self._waiting.update((collection_id, shard) for shard in shards)
        if self._sending is None or self._sending.done():
            self._sending = asyncio.create_task(self._send())

    async def flush(self) -> None:
        """Waits until all marks have been sent."""
        if self._sending is not None:
            await self._sending

    async def _send(self) -> None:
        while self._waiting:
            await asyncio.sleep(self._gather_s)
            batch, self._waiting = self._waiting, set()
            try:
                await self._jobs.mark_dirty(sorted(batch))
            except Unavailable as error:
                log.warning("dirty_shards_not_marked", shards=len(batch), message=error.message)
                self._waiting |= batch
                await asyncio.sleep(RETRY_S)
