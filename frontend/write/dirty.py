"""Tells the log service which shards were written. A hint only, so it is given after the answer and in bundles."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import TYPE_CHECKING, Final

from shared.errors import Unavailable
from shared.process.telemetry import get_logger

if TYPE_CHECKING:
    from shared.log.jobs import Jobs

GATHER_S: Final = 0.1
"""How long a hint waits for others: a client that writes row by row costs ten commands a second, not one per row."""

RETRY_S: Final = 1.0
"""Pause after Redis did not take the hints."""

log = get_logger(__name__)


class DirtyShards:
    """Shards written since the last bundle. One bundle is on its way at a time; what comes meanwhile is the next."""

    def __init__(self, jobs: Jobs, gather_s: float = GATHER_S) -> None:
        self._jobs = jobs
        self._gather_s = gather_s
        self._waiting: set[tuple[str, int]] = set()
        self._sending: asyncio.Task[None] | None = None

    def add(self, collection_id: str, shards: Iterable[int]) -> None:
        self._waiting.update((collection_id, shard) for shard in shards)
        if self._sending is None or self._sending.done():
            self._sending = asyncio.create_task(self._send())

    async def flush(self) -> None:
        """Wait until all that was added has been sent."""
        if self._sending is not None:
            await self._sending

    async def _send(self) -> None:
        while self._waiting:
            await asyncio.sleep(self._gather_s)
            bundle, self._waiting = self._waiting, set()
            try:
                await self._jobs.mark_dirty(sorted(bundle))
            except Unavailable as error:
                log.warning("dirty_shards_not_marked", shards=len(bundle), message=error.message)
                self._waiting |= bundle
                await asyncio.sleep(RETRY_S)
