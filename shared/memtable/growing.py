"""Arrays that are appended to while they are read."""

from __future__ import annotations

from typing import Any, Final

import numpy as np
import numpy.typing as npt

from shared.vectors.arrays import AnyArray

_ROWS_FIRST: Final = 256


class Growing:
    """A numpy array that is appended to; doubles when it is full, leaving the old buffer to whoever holds it."""

    def __init__(self, dtype: npt.DTypeLike, width: int | None = None) -> None:
        self._shape = () if width is None else (width,)
        self.buffer: AnyArray = np.empty((0, *self._shape), dtype)

    def write(self, at: int, values: Any, count: int) -> None:
        """`values` into the rows [at, at + count)."""
        if at + count > len(self.buffer):
            rows = max(_ROWS_FIRST, 2 * len(self.buffer), at + count)
            grown = np.empty((rows, *self._shape), self.buffer.dtype)
            grown[:at] = self.buffer[:at]
            self.buffer = grown
        self.buffer[at : at + count] = values

    def rest(self, begin: int, end: int) -> Growing:
        """The rows [begin, end), in the memory of this one unless most of that would be held for nothing."""
        rest = Growing(self.buffer.dtype, *self._shape)
        rows = self.buffer[begin:]
        rest.buffer = rows if 2 * (end - begin) >= len(self.buffer) else rows[: end - begin].copy()
        return rest
