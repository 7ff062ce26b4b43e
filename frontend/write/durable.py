"""Brings writes that were appended to the durability class that they asked for."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

from frontend.parse.durability import DISK, Durability
from shared.errors import InvalidArgument, LessDurable, PolychromeError
from shared.process.telemetry import get_logger

if TYPE_CHECKING:
    from frontend.write.bucket_log import BucketLog
    from shared.catalog import Collection
    from shared.log.append import Appended
    from shared.log.log import Log
    from shared.process.clock import Clock

COUNTED_S: Final = 1.0
"""Time for which the number of replicas is believed."""

BUCKET_S_MAX: Final = 20.0
"""Longest time that a write waits for the bucket, in seconds."""

log = get_logger(__name__)


class Durable:
    """The durability classes beyond the disk of the log's server."""

    def __init__(self, log_: Log, bucket: BucketLog, clock: Clock) -> None:
        self._log = log_
        self._bucket = bucket
        self._clock = clock
        self._replicas = 0
        self._counted_s = float("-inf")

    async def check(self, durability: Durability) -> None:
        """Raises InvalidArgument for a class that cannot be reached now, before anything is appended; Unavailable."""
        wanted = durability.replicas
        if wanted and (wanted > self._replicas or self._clock.monotonic() - self._counted_s > COUNTED_S):
            self._replicas = await self._log.replicas()
            self._counted_s = self._clock.monotonic()
            if wanted > self._replicas:
                raise InvalidArgument(
                    f"durability: {durability} needs {wanted} replicas of the log's server, which has {self._replicas}"
                )

    async def reach(self, collection: Collection, appended: Appended, durability: Durability) -> None:
        """Returns when the append is as durable as asked for. Raises LessDurable when it is on disk, and no more."""
        if appended.replicas < durability.replicas:
            confirmed = f"{appended.replicas} replicas have confirmed the write in time"
            raise LessDurable(f"{durability} was not reached: {confirmed}", str(DISK))
        if durability.in_bucket:
            await self._reach_bucket(collection)

    async def _reach_bucket(self, collection: Collection) -> None:
        try:
            async with asyncio.timeout(BUCKET_S_MAX):
                await self._bucket.reach(collection.id, collection.layout)
        except (PolychromeError, TimeoutError) as error:
            log.warning("write_not_in_bucket", collection=collection.id, reason=str(error) or "too slow")
            raise LessDurable("bucket was not reached: the bucket has not taken it in time", str(DISK)) from error
