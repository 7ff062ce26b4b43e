"""What happened in a run, line by line, and a hash of it: two runs of one seed have the same."""

from __future__ import annotations

import hashlib
from collections import deque
from typing import Final

KEPT: Final = 4000
"""Lines that are kept for the report of a failure."""


class Trace:
    def __init__(self, time_s: object) -> None:
        self._time_s = time_s
        self._hash = hashlib.blake2b(digest_size=8)
        self.lines: deque[str] = deque(maxlen=KEPT)

    def add(self, text: str) -> None:
        line = f"{self._time_s():9.4f} {text}"  # type: ignore[operator]
        self._hash.update(line.encode())
        self.lines.append(line)

    @property
    def digest(self) -> str:
        return self._hash.hexdigest()
