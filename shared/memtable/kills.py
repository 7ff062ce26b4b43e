"""Rows of the base that the tail killed."""

from __future__ import annotations

import numpy as np

from shared.memtable.growing import Growing
from shared.vectors.arrays import RowNumbers


class Kills:
    """Those of one segment, in the order of their deaths."""

    def __init__(self) -> None:
        self._rows = Growing(np.int64)
        self._died = Growing(np.int64)  # ascending
        self._ids: list[str] = []
        self._size = 0

    def add(self, row: int, id_: str, died: int) -> None:
        self._rows.write(self._size, row, 1)
        self._died.write(self._size, died, 1)
        self._ids.append(id_)
        self._size += 1

    def after(self, position: int) -> list[tuple[int, str]]:
        """(died, id) of the rows that are alive as of `position`."""
        first = int(self._died.buffer[: self._size].searchsorted(position, side="right"))
        return list(zip(self._died.buffer[first : self._size].tolist(), self._ids[first:], strict=True))

    def as_of(self, position: int) -> RowNumbers:
        """The rows that are dead as of `position`."""
        size = self._size  # first: the buffers hold at least this much
        died = self._died.buffer[:size]
        rows: RowNumbers = self._rows.buffer[: int(died.searchsorted(position, side="right"))]
        return rows
