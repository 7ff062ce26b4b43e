"""Gives back to the system what a process needed for a while: bodies of requests, batches, graphs under construction.

The C library keeps freed memory for the next time. After bulk work that is most of what a process seems to hold. Asked
to, it gives back every free page but those at the ends of arenas other than the first; so there is only that one. It
takes a few milliseconds and makes the next bulk work fault its pages in again, so it is asked when the process has come
to rest.
"""

from __future__ import annotations

import asyncio
import ctypes
import gc
import time
from typing import Final

LOOK_EVERY_S: Final = 2.0
WORK_S: Final = 0.5
"""So much CPU time is worth tidying up after, however slowly it was had."""
REST_SHARE: Final = 0.05
"""CPU time per time, of one core: what counts as rest."""


KEPT_BYTES: Final = 16 * 1024 * 1024
_OF_SYSTEM_BYTES: Final = 4 * 1024 * 1024
_TRIM_THRESHOLD: Final = -1
_MMAP_THRESHOLD: Final = -3
_ARENA_MAX: Final = -8
"""glibc's numbers of what `mallopt` sets."""


class Tidying:
    """Says when: after some work, at the first rest. `cpu_s` grows."""

    def __init__(self, cpu_s: float) -> None:
        self._cpu_s = cpu_s
        self._tidied_s = cpu_s

    def due(self, cpu_s: float, elapsed_s: float) -> bool:
        """Whether to give memory back now, `elapsed_s` after the last look."""
        share = (cpu_s - self._cpu_s) / elapsed_s
        self._cpu_s = cpu_s
        if share > REST_SHARE or cpu_s - self._tidied_s < WORK_S:
            return False
        self._tidied_s = cpu_s
        return True


async def give_back_at_rest() -> None:
    """A loop, for as long as the process lives."""
    tidying = Tidying(time.process_time())
    looked_s = time.monotonic()
    while True:
        await asyncio.sleep(LOOK_EVERY_S)
        now_s = time.monotonic()
        if tidying.due(time.process_time(), now_s - looked_s):
            await asyncio.to_thread(give_back)
        looked_s = now_s


def in_one_arena() -> None:
    """All threads take their memory from the same place. To be called while there is only one."""
    _set(_ARENA_MAX, 1)


def keep_for_reuse() -> None:
    """Keeps KEPT_BYTES of freed memory until the next rest. By itself the C library gives back whatever block is longer
    than 128 KiB as soon as it is free: for a process that makes such arrays all the time, faulting the pages in again
    costs more than what is computed in them.
    """
    _set(_MMAP_THRESHOLD, _OF_SYSTEM_BYTES)
    _set(_TRIM_THRESHOLD, KEPT_BYTES)


def _set(what: int, value: int) -> None:
    """Only glibc can be told."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(what, value)


def give_back() -> None:
    """Does it now. What hangs in cycles goes first: a process at rest would never come to collecting it. Without glibc
    that is all.
    """
    gc.collect()
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)
