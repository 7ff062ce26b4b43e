"""Rows of a base segment that operations of the tail deleted, or replaced by a row of the tail."""

from __future__ import annotations

import numpy as np

from shared.memtable.growable_array import GrowableArray
from shared.vectors.arrays import RowNumbers


class Deletions:
    """The deleted rows of one base segment, in the order of their deletion, each with the position that it died at.

    One thread adds; any number read, without a lock, as of a position below which everything was added before.
    """

    def __init__(self) -> None:
        self._rows = GrowableArray(np.int64)
        self._died = GrowableArray(np.int64)  # ascending
        self._ids: list[str] = []
        self._size = 0

    def add(self, row: int, id_: str, died: int) -> None:
        """Adds a row with its record's id; `died` is not less than any before."""
        self._rows.write(self._size, row, 1)
        self._died.write(self._size, died, 1)
        self._ids.append(id_)
        self._size += 1

    def after(self, position: int) -> list[tuple[int, str]]:
        """(died, id) of the rows that were deleted later: they are alive as of `position`."""
        first = int(self._died.buffer[: self._size].searchsorted(position, side="right"))
        return list(zip(self._died.buffer[first : self._size].tolist(), self._ids[first:], strict=True))

    def as_of(self, position: int) -> RowNumbers:
        """The rows that are dead as of `position`, in the order of their deletion."""
        size = self._size  # first: the buffers hold at least this much
        died = self._died.buffer[:size]
        rows: RowNumbers = self._rows.buffer[: int(died.searchsorted(position, side="right"))]
        return rows
