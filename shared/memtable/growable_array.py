"""Arrays that one thread appends to while others read what was there before."""

from __future__ import annotations

from typing import Any, Final

import numpy as np
import numpy.typing as npt

from shared.vectors.arrays import AnyArray

_ROWS_FIRST: Final = 256


class GrowableArray:
    """A numpy array of rows, each a number or `width` numbers, that is appended to.

    `buffer` has room for more rows than were written. When it is full it is replaced by a copy of twice the length;
    readers that took the old buffer keep it.
    """

    def __init__(self, dtype: npt.DTypeLike, width: int | None = None) -> None:
        self._shape = () if width is None else (width,)
        self.buffer: AnyArray = np.empty((0, *self._shape), dtype)

    def write(self, at: int, values: Any, count: int) -> None:
        """Writes `values` into the rows [at, at + count): one for each row, of the shape [count] or [count, width], or
        one for all of them. Raises ValueError for another shape. Rows before `at` stay as they are.
        """
        if at + count > len(self.buffer):
            rows = max(_ROWS_FIRST, 2 * len(self.buffer), at + count)
            grown = np.empty((rows, *self._shape), self.buffer.dtype)
            grown[:at] = self.buffer[:at]
            self.buffer = grown
        self.buffer[at : at + count] = values

    def rest(self, begin: int, end: int) -> GrowableArray:
        """An array of the rows [begin, end). It shares this one's memory, unless most of that would be held for
        nothing: then it is a copy.
        """
        rest = GrowableArray(self.buffer.dtype, *self._shape)
        rows = self.buffer[begin:]
        rest.buffer = rows if 2 * (end - begin) >= len(self.buffer) else rows[: end - begin].copy()
        return rest
