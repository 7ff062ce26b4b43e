"""The progress of commands that read or copy much, on standard error."""

from __future__ import annotations

import sys
import time
from typing import Final

PROGRESS_EVERY_S: Final = 2.0
"""Pause between two lines, in seconds."""


class Progress:
    """Counts bytes, and prints how many there are so far, now and then. `verb` says what was done with them."""

    def __init__(self, verb: str) -> None:
        self._verb = verb
        self._bytes = 0
        self._said_s = time.monotonic()

    def __call__(self, size: int) -> None:
        self._bytes += size
        now = time.monotonic()
        if now - self._said_s >= PROGRESS_EVERY_S:
            self._said_s = now
            print(f"{self._verb} {self._bytes:,} bytes", file=sys.stderr, flush=True)
