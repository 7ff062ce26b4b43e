"""Deadlines and retries for any object store: the only level at which calls to object storage are retried.

1. An attempt that moves a known number of bytes has a time limit that grows with it (`base + bytes / slowest accepted
   rate`). Of downloads, lists and deletes the size is not known beforehand: there the store's own socket timeouts see
   to it that no attempt hangs.
2. Unavailable, UnknownOutcome and a passed time limit are tried again after a pause that doubles, with jitter, until
   the deadline of the whole call; then the last error is raised. Anything else is raised at once, VolumeFull too: the
   store is there, and waiting makes no room. A list that broke begins again and skips what it has given already.
3. `create` is the one call that must not be repeated blindly: when an earlier attempt may have been applied and a later
   one finds the object there, reading it back decides: the same bytes are ours.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from prometheus_client import Counter

from shared.errors import Unavailable, UnknownOutcome
from shared.objects.port import ObjectInfo, ObjectStore, VolumeFull
from shared.process.clock import Clock

RETRIES = Counter(
    "polychrome_objects_retries_total", "Attempts on object storage that had to be repeated.", ["operation"]
)

T = TypeVar("T")


@dataclass(frozen=True)
class RetryLimits:
    """Time limits of calls. A call that moves n bytes has `deadline_s + n / rate_bytes_s` seconds for all its attempts,
    and `attempt_s + n / rate_bytes_s` for each of them.
    """

    deadline_s: float = 20.0
    attempt_s: float = 8.0
    rate_bytes_s: float = 1024 * 1024
    pause_first_s: float = 0.05
    pause_max_s: float = 2.0


class RetryingStore:
    """An object store that repeats the calls of `store` through its short failures, until the deadline of each call."""

    def __init__(
        self,
        store: ObjectStore,
        clock: Clock,
        *,
        limits: RetryLimits | None = None,
        randomness: random.Random | None = None,
    ) -> None:
        self._store = store
        self._clock = clock
        self._limits = limits or RetryLimits()
        self._random = randomness or random.Random()  # noqa: S311 (jitter)

    async def get(self, key: str) -> bytes:
        return await self._persist("get", lambda: self._store.get(key))

    async def get_range(self, key: str, start: int, end: int) -> bytes:
        return await self._persist("get_range", lambda: self._store.get_range(key, start, end), end - start)

    async def download(self, key: str, path: Path) -> None:
        await self._persist("download", lambda: self._store.download(key, path), None)

    async def put(self, key: str, data: bytes | Path) -> None:
        size = (await asyncio.to_thread(data.stat)).st_size if isinstance(data, Path) else len(data)
        await self._persist("put", lambda: self._store.put(key, data), size)

    async def create(self, key: str, data: bytes) -> bool:
        uncertain = False

        async def attempt() -> bool:
            nonlocal uncertain
            try:
                created = await self._store.create(key, data)
            except (UnknownOutcome, asyncio.CancelledError):
                uncertain = True
                raise
            if created or not uncertain:
                return created
            return await self._store.get(key) == data

        try:
            return await self._persist("create", attempt, len(data))
        except Unavailable as error:
            if uncertain and not isinstance(error, UnknownOutcome):
                raise UnknownOutcome(error.message) from error
            raise

    async def delete(self, keys: Iterable[str]) -> None:
        doomed = list(keys)
        await self._persist("delete", lambda: self._store.delete(doomed), None)

    async def list(self, prefix: str) -> AsyncIterator[ObjectInfo]:
        pauses = _Pauses(self._limits, self._clock, self._random)
        last = ""
        while True:
            try:
                async for info in self._store.list(prefix):
                    if info.key > last:
                        last = info.key
                        yield info
            except Unavailable as error:
                await pauses.wait("list", error)
            else:
                return

    async def _persist(self, operation: str, attempt: Callable[[], Awaitable[T]], size: int | None = 0) -> T:
        extra_s = (size or 0) / self._limits.rate_bytes_s
        limit_s = None if size is None else self._limits.attempt_s + extra_s
        pauses = _Pauses(self._limits, self._clock, self._random, extra_s)
        while True:
            try:
                async with asyncio.timeout(limit_s):
                    return await attempt()
            except TimeoutError:
                await pauses.wait(
                    operation, Unavailable(f"object storage: no answer to {operation} within {limit_s:.0f} s")
                )
            except VolumeFull:
                raise
            except Unavailable as error:
                await pauses.wait(operation, error)


class _Pauses:
    """The pauses between the attempts of one call."""

    def __init__(self, limits: RetryLimits, clock: Clock, randomness: random.Random, extra_s: float = 0.0) -> None:
        self._limits = limits
        self._clock = clock
        self._random = randomness
        self._deadline = clock.monotonic() + limits.deadline_s + extra_s
        self._pause_s = limits.pause_first_s

    async def wait(self, operation: str, error: Unavailable) -> None:
        """Sleeps until the next attempt; raises the error when the deadline comes first."""
        pause_s = self._pause_s * self._random.uniform(0.5, 1.0)
        if self._clock.monotonic() + pause_s >= self._deadline:
            raise error
        RETRIES.labels(operation).inc()
        self._pause_s = min(2 * self._pause_s, self._limits.pause_max_s)
        await self._clock.sleep(pause_s)
