"""Whether the bucket takes writes, found out by a small object: cheaper, and sooner, than by a snapshot that fails."""

from __future__ import annotations

import asyncio
import uuid
from typing import Final

from shared.errors import Unavailable
from shared.objects.keys import PROBES
from shared.objects.port import ObjectStore

PROBE_S_MAX: Final = 1.5
"""Time within which a bucket that takes writes has taken a small object, in seconds."""


class WritableBucket:
    """A bucket that may take no writes. Asked again and again, it is tried only while that is in doubt: at first, and
    after a failure.
    """

    def __init__(self, objects: ObjectStore) -> None:
        self._objects = objects
        self._in_doubt = True

    def doubt(self) -> None:
        """Notes that a write has failed."""
        self._in_doubt = True

    async def require(self) -> None:
        """Raises Unavailable soon, and does nothing else, while the bucket takes no writes."""
        if not self._in_doubt:
            return
        key = f"{PROBES}{uuid.uuid4().hex}"
        try:
            async with asyncio.timeout(PROBE_S_MAX):
                await self._objects.put(key, b"does the bucket take writes?")
                await self._objects.delete([key])
        except TimeoutError:
            raise Unavailable(f"object storage took no small object within {PROBE_S_MAX} s") from None
        self._in_doubt = False
