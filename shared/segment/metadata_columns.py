"""A column of the metadata index: the values of one kind at one key, sorted, with the row of each.

```text
kind                  arrays, in this order
int      int[]        values <i8 [n] ascending     rows <i4 [n]
float    float[]      values <f8 [n] ascending     rows <i4 [n]
bool     bool[]       values  u1 [n] ascending     rows <i4 [n]
str      str[]        text    u1 [b]  the distinct values' UTF-8 end to end, ascending by bytes
                      ends   <i8 [u+1]  value i is text[ends[i]:ends[i+1]]
                      starts <i8 [u+1]  its rows are rows[starts[i]:starts[i+1]]
                      rows   <i4 [n]
```

Rows of equal values ascend. A kind with `[]` holds the elements of arrays, each element once per row. So equality,
a range and membership are each one slice of `rows`, found by binary search that touches a few pages of the mapped file.
"""

from __future__ import annotations

import enum
import math
from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Final, Literal, TypeAlias

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from shared.process.lazy import lazy
from shared.records.where import Compare
from shared.vectors.arrays import AnyArray, Int64Array, RowNumbers32, Uint8Array

Packed: TypeAlias = Any
"""Values of one kind: a numpy array of numbers or an Arrow array of large_string."""

Side = Literal["left", "right"]

_SAMPLED_VALUES: Final = 8
_SAMPLE_BYTES: Final = 1024 * 1024
_INT64_MIN: Final = -(2**63)
_INT64_MAX: Final = 2**63 - 1


class Kind(enum.StrEnum):
    """The type of a value, or of an array's elements; the values are stored."""

    INT = "int"
    FLOAT = "float"
    BOOL = "bool"
    STR = "str"
    INTS = "int[]"
    FLOATS = "float[]"
    BOOLS = "bool[]"
    STRS = "str[]"


_NUMBER_TYPES: Final[dict[Kind, str]] = {
    Kind.INT: "<i8",
    Kind.FLOAT: "<f8",
    Kind.BOOL: "u1",
    Kind.INTS: "<i8",
    Kind.FLOATS: "<f8",
    Kind.BOOLS: "u1",
}


SCHEMA_TYPES: Final[dict[Kind, str]] = {
    Kind.INT: "int",
    Kind.FLOAT: "float",
    Kind.BOOL: "bool",
    Kind.STR: "string",
    Kind.INTS: "int",
    Kind.FLOATS: "float",
    Kind.BOOLS: "bool",
    Kind.STRS: "string",
}
"""The value type of a schema that each kind belongs to; an array belongs to that of its elements."""


class ColumnInfo(msgspec.Struct, frozen=True, array_like=True):
    """An entry of the directory: where each array of the column begins and how many elements it has."""

    key: str
    kind: Kind
    arrays: list[tuple[int, int]]


class Directory(msgspec.Struct, frozen=True):
    """The directory at the end of `metadata.index`."""

    columns: list[ColumnInfo]


def array_types(kind: Kind) -> tuple[str, ...]:
    """The numpy types of a column's arrays, in the order of `arrays()`."""
    number = _NUMBER_TYPES.get(kind)
    return (number, "<i4") if number else ("u1", "<i8", "<i8", "<i4")


@dataclass(frozen=True, slots=True)
class NumberColumn:
    """A column of integers, floats or booleans: `values` ascending, and the row of each."""

    values: AnyArray
    rows: RowNumbers32

    def arrays(self) -> tuple[AnyArray, ...]:
        return self.values, self.rows

    def place(self, value: float, side: Side) -> int:
        """The number of values that are less than `value` (left) or not greater (right), compared exactly.

        An int64 against a float64 is never compared through a rounded conversion: beyond 2**53 that would call
        different numbers equal.
        """
        if self.values.dtype.kind == "f":
            return self._place_in_floats(value, side)
        if isinstance(value, float) and math.isinf(value):
            return len(self.values) if value > 0 else 0
        whole = math.floor(value)
        if whole > _INT64_MAX:
            return len(self.values)
        if whole < _INT64_MIN:
            return 0
        # No integer lies strictly between floor(value) and value.
        return int(np.searchsorted(self.values, whole, side if whole == value else "right"))

    def _place_in_floats(self, value: float, side: Side) -> int:
        try:
            near = float(value)
        except OverflowError:
            return len(self.values) if value > 0 else 0
        # `near` is the float64 next to an integer `value`: no other float lies between the two.
        if near > value:
            side = "left"
        elif near < value:
            side = "right"
        return int(np.searchsorted(self.values, near, side))

    def select(self, op: Compare, value: float) -> RowNumbers32:
        """Rows whose value stands in relation `op` to `value` (any but `NE`), ascending by value."""
        match op:
            case Compare.EQ:
                return self.rows[self.place(value, "left") : self.place(value, "right")]
            case Compare.GT:
                return self.rows[self.place(value, "right") :]
            case Compare.GTE:
                return self.rows[self.place(value, "left") :]
            case Compare.LT:
                return self.rows[: self.place(value, "left")]
            case Compare.LTE:
                return self.rows[: self.place(value, "right")]
            case Compare.NE:
                raise ValueError("a complement is taken of the whole, not of one column")


@dataclass(frozen=True)
class TextColumn:
    """A column of strings; for its arrays see the module's text."""

    text: Uint8Array
    ends: Int64Array
    starts: Int64Array
    rows: RowNumbers32

    def arrays(self) -> tuple[AnyArray, ...]:
        return self.text, self.ends, self.starts, self.rows

    def value(self, index: int) -> str:
        """The `index`-th of the distinct values, ascending."""
        return self._value(index).decode()

    def _value(self, index: int) -> bytes:
        return self.text[self.ends[index] : self.ends[index + 1]].tobytes()

    @lazy
    def _sample(self) -> list[bytes]:
        """The first of every so many values, in memory: it is searched before the file is read."""
        return [self._value(index) for index in range(0, len(self.ends) - 1, self._sampling_interval)]

    @property
    def _sampling_interval(self) -> int:
        """How many values the sample takes one of: of long texts more, so that it stays small."""
        return max(_SAMPLED_VALUES, -(-len(self.text) // _SAMPLE_BYTES))

    def equal(self, value: str) -> RowNumbers32:
        """The rows that have this value, ascending."""
        wanted = value.encode()
        begin = self._sampling_interval * (bisect_right(self._sample, wanted) - 1)
        if begin < 0:
            return self.rows[:0]
        ends = self.ends[begin : begin + self._sampling_interval + 1].tolist()
        text = self.text[ends[0] : ends[-1]].tobytes()
        values = [text[first - ends[0] : last - ends[0]] for first, last in pairwise(ends)]
        place = bisect_left(values, wanted)
        if place == len(values) or values[place] != wanted:
            return self.rows[:0]
        return self.rows[self.starts[begin + place] : self.starts[begin + place + 1]]


Column = NumberColumn | TextColumn


def packed_values(kind: Kind, values: Sequence[Any]) -> Packed:
    """Values as an array of the kind's type, which takes a tenth of the memory of objects."""
    number = _NUMBER_TYPES.get(kind)
    return np.array(values, dtype=number) if number else pa.array(values, pa.large_string())


def number_column(values: AnyArray, rows: RowNumbers32) -> NumberColumn:
    """The column of these values; `rows` is parallel to them and ascending."""
    order = np.argsort(values, kind="stable")
    return NumberColumn(values[order], rows[order])


def text_column(values: pa.LargeStringArray, rows: RowNumbers32) -> TextColumn:
    """The column of these values; `rows` is parallel to them and ascending."""
    encoded = values.dictionary_encode()
    order = pc.sort_indices(encoded.dictionary)
    distinct = encoded.dictionary.take(order)
    rank = np.empty(len(order), dtype=np.int64)
    rank[order.to_numpy()] = np.arange(len(order))
    ranks = rank[encoded.indices.to_numpy()]
    starts = np.zeros(len(order) + 1, dtype="<i8")
    np.cumsum(np.bincount(ranks, minlength=len(order)), out=starts[1:])
    sorted_rows = rows[np.argsort(ranks, kind="stable")]
    ends = np.zeros(len(order) + 1, dtype="<i8")
    np.cumsum(pc.binary_length(distinct).to_numpy(), out=ends[1:])
    # `distinct` is fresh from `take`: its offsets begin at 0, so its data buffer is the text.
    data = distinct.buffers()[2]
    text = np.frombuffer(data, dtype=np.uint8, count=int(ends[-1])) if ends[-1] else np.empty(0, np.uint8)
    return TextColumn(text, ends, starts, sorted_rows)


def column_of(kind: Kind, arrays: Sequence[AnyArray]) -> Column:
    """The column whose `arrays()` are these."""
    return NumberColumn(*arrays) if kind in _NUMBER_TYPES else TextColumn(*arrays)


def build_column(kind: Kind, values: Sequence[Packed], rows: Sequence[RowNumbers32]) -> Column:
    """The column of these arrays of values, with their rows, put end to end."""
    together = np.concatenate(rows)
    if kind in _NUMBER_TYPES:
        return number_column(np.concatenate(values), together)
    return text_column(pa.concat_arrays(values), together)
