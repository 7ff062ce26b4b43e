"""Freed memory goes back to the system: bodies of requests, batches, graphs under construction.

The C library keeps freed memory for the next allocation. After bulk work that is most of what a process seems to hold.
On request (`malloc_trim`) it returns every free page but those at the ends of arenas other than the first; so there is
only that one here. Trimming takes a few milliseconds, and the next bulk work has to fault its pages in again; so it is
done when the process has become idle.
"""

from __future__ import annotations

import asyncio
import ctypes
import gc
import time
from typing import Final

CHECK_INTERVAL_S: Final = 2.0
"""Seconds between two checks whether the process is idle."""

WORK_CPU_S: Final = 0.5
"""Seconds of CPU time after which trimming is worth while, however long they took."""

IDLE_SHARE: Final = 0.05
"""A process that used less than this share of one core since the last check is idle."""

KEPT_FREE_BYTES: Final = 16 * 1024 * 1024
"""Free memory that a process keeps until it is idle, when it asks for that (`keep_freed_memory`)."""

MAPPED_BYTES_MIN: Final = 4 * 1024 * 1024
"""Then larger blocks alone are mapped by themselves, and go back to the system as soon as they are free."""

_M_TRIM_THRESHOLD: Final = -1
_M_MMAP_THRESHOLD: Final = -3
_M_ARENA_MAX: Final = -8
"""glibc's names of what `mallopt` sets."""


class TrimSchedule:
    """Decides when to trim: after some work, when the process is idle for the first time. Pure."""

    def __init__(self, cpu_s: float) -> None:
        """`cpu_s` is the CPU time of the process so far, in seconds."""
        self._cpu_s = cpu_s
        self._trimmed_s = cpu_s

    def due(self, cpu_s: float, elapsed_s: float) -> bool:
        """Whether to trim now, `elapsed_s` seconds after the last check, when the process has used `cpu_s` in all."""
        share = (cpu_s - self._cpu_s) / elapsed_s
        self._cpu_s = cpu_s
        if share > IDLE_SHARE or cpu_s - self._trimmed_s < WORK_CPU_S:
            return False
        self._trimmed_s = cpu_s
        return True


async def trim_when_idle() -> None:
    """A loop, for as long as the process lives: trims by the schedule."""
    schedule = TrimSchedule(time.process_time())
    checked_s = time.monotonic()
    while True:
        await asyncio.sleep(CHECK_INTERVAL_S)
        now_s = time.monotonic()
        if schedule.due(time.process_time(), now_s - checked_s):
            await asyncio.to_thread(trim)
        checked_s = now_s


def use_one_arena() -> None:
    """Makes all threads allocate from the same arena. To be called while there is only one thread."""
    _mallopt(_M_ARENA_MAX, 1)


def keep_freed_memory() -> None:
    """Keeps `KEPT_FREE_BYTES` of freed memory until the process is idle.

    By default the C library returns every block over 128 KiB to the system as soon as it is free. For a process that
    makes such arrays all the time, faulting their pages in again costs more than what is computed in them.
    """
    _mallopt(_M_MMAP_THRESHOLD, MAPPED_BYTES_MIN)
    _mallopt(_M_TRIM_THRESHOLD, KEPT_FREE_BYTES)


def trim() -> None:
    """Returns free memory to the system. Cycles are collected first: an idle process would never come to it by itself.
    Where the C library is not glibc that is all.
    """
    gc.collect()
    malloc_trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if malloc_trim is not None:
        malloc_trim(0)


def _mallopt(parameter: int, value: int) -> None:
    """Sets a parameter of the allocator, where the C library is glibc."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(parameter, value)
