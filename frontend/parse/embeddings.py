"""The embeddings of a request, from JSON to one float32 array, without a step of Python per number.

A column holds either lists of numbers or base64 text (little-endian float32); rows may be null in an update.
Reading is in two parts, because it is checked in two places (docs/wire.md, section 2): the shape (422) before the
collection is looked up, the values (400) after it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any, Final

import msgspec
import numpy as np
import pybase64

from frontend.parse.number_rows import NumberRows
from frontend.parse.shapes import wrong_shape
from shared.errors import InvalidArgument
from shared.vectors.arrays import Float32Array, RowNumbers, Vectors

FLOAT_BYTES: Final = 4
_PAD: Final = ord("=")
_ZERO_BITS: Final = ord("A")


@dataclass(frozen=True, slots=True)
class RawEmbeddings:
    """A column of the right shape. `rows` are those that are not null, all of them base64 text or all of them numbers;
    `present` (int64) their places among the `count` rows of the column, None when no row is null.
    """

    rows: list[Any] | NumberRows
    present: RowNumbers | None
    count: int

    @property
    def widest(self) -> int:
        """The width of the widest vector, 0 when there is none; of base64 text what its length allows."""
        if isinstance(self.rows, NumberRows):
            return max(self.rows.lengths, default=0)
        longest = max(map(len, self.rows), default=0)
        return longest * 3 // (4 * FLOAT_BYTES) if self.rows and type(self.rows[0]) is str else longest


@dataclass(frozen=True, slots=True)
class Embeddings:
    """Decoded vectors end to end. `widths` are the different widths that occur, in order of first appearance; `present`
    and `count` are as of `RawEmbeddings`.
    """

    values: Float32Array
    widths: tuple[int, ...]
    present: RowNumbers | None
    count: int

    @property
    def matrix(self) -> Vectors:
        """The vectors, [n, d]. There must be exactly one width, above 0."""
        return self.values.reshape(-1, self.widths[0])

    def problem(self) -> str | None:
        """Why the vectors are refused, None when they are valid."""
        if 0 in self.widths:
            return "Each embedding must have at least 1 dimension"
        if not np.isfinite(self.values).all():
            return "Embeddings must not contain NaN or Infinity values"
        return None


def read_embeddings(column: Any, *, encoded_allowed: bool = True, nulls_allowed: bool = False) -> RawEmbeddings:
    """The column, its shape checked: a list of vectors, each of them numbers, or base64 text where `encoded_allowed`,
    or null where `nulls_allowed`. Raises WrongShape.
    """
    if isinstance(column, NumberRows):
        return RawEmbeddings(column, None, len(column.lengths))
    if type(column) is not list:
        raise wrong_shape("embeddings: expected a list of vectors")
    present = None
    rows = column
    if nulls_allowed and None in column:
        places = [place for place, row in enumerate(column) if row is not None]
        present = np.array(places, dtype=np.int64)
        rows = [column[place] for place in places]
    types = set(map(type, rows))
    if types == {list}:
        try:
            msgspec.convert(rows, list[list[float]])
        except msgspec.ValidationError as error:
            raise wrong_shape(f"embeddings: {error}") from None
    elif types and not (encoded_allowed and types == {str}):
        raise wrong_shape("embeddings: expected vectors of numbers, all of one form")
    return RawEmbeddings(rows, present, len(column))


def decode(raw: RawEmbeddings) -> Embeddings:
    """The vectors of a column: base64 is decoded, numbers are rounded to float32 (too large ones become infinite).
    Raises InvalidArgument.
    """
    rows = raw.rows
    if isinstance(rows, NumberRows):
        values, widths = rows.values, tuple(dict.fromkeys(rows.lengths))
    elif rows and type(rows[0]) is str:
        values, widths = _decode_base64(rows)
    else:
        values, widths = _round_numbers(rows)
    return Embeddings(values, widths, raw.present, raw.count)


def _round_numbers(rows: list[list[float]]) -> tuple[Float32Array, tuple[int, ...]]:
    with np.errstate(over="ignore"):
        values = np.fromiter(chain.from_iterable(rows), dtype=np.float32, count=sum(map(len, rows)))
    return values, tuple(dict.fromkeys(map(len, rows)))


def _decode_base64(rows: Sequence[str]) -> tuple[Float32Array, tuple[int, ...]]:
    values = _decode_uniform(rows)
    if values is not None:
        return values, (values.size // len(rows),)
    vectors = [_decode_row(row) for row in rows]  # different widths, or an error to be told exactly
    return np.concatenate(vectors), tuple(dict.fromkeys(map(len, vectors)))


def _decode_uniform(rows: Sequence[str]) -> Float32Array | None:
    """The numbers of all rows, decoded at once, when all rows have one width and are valid and finite; else None.

    Padding stands at the end of every row, in the middle of the joined text. It is overwritten by the digit that
    means zero bits, and the bytes that come of it are cut off: they are zero unless the digit before the padding had
    bits that belong to no byte, which a strict decoder refuses.
    """
    length = len(rows[0])
    if length == 0 or length % 4 or len(set(map(len, rows))) != 1:
        return None
    padding = length - len(rows[0].rstrip("="))
    width, odd_bytes = divmod(length // 4 * 3 - padding, FLOAT_BYTES)
    if padding > 2 or odd_bytes:
        return None
    text = "".join(rows)
    try:
        if padding:
            data = _decode_padded(text.encode("ascii"), len(rows), padding)
        else:
            data = pybase64.b64decode(text, validate=True)
    except ValueError:
        return None
    if data is None or len(data) != len(rows) * width * FLOAT_BYTES:
        return None
    values = np.frombuffer(data, dtype="<f4")
    return values if np.isfinite(values).all() else None


def _decode_padded(text: bytes, count: int, padding: int) -> bytes | None:
    digits = np.frombuffer(bytearray(text), dtype=np.uint8).reshape(count, -1)
    if not (digits[:, -padding:] == _PAD).all():
        return None
    digits[:, -padding:] = _ZERO_BITS
    data = np.frombuffer(pybase64.b64decode(digits.tobytes(), validate=True), dtype=np.uint8).reshape(count, -1)
    return None if data[:, -padding:].any() else data[:, :-padding].tobytes()


def _decode_row(row: str) -> Float32Array:
    """The numbers of one row. Raises InvalidArgument that says what is wrong with it (docs/wire.md, section 11)."""
    try:
        data = pybase64.b64decode(row, validate=True)
    except ValueError as error:
        raise InvalidArgument(f"Invalid base64 string: {error}") from None
    if pybase64.b64encode(data).decode() != row:
        raise InvalidArgument("Invalid base64 string: invalid last symbol")
    if len(data) % FLOAT_BYTES:
        raise InvalidArgument(
            f"Invalid byte length: {len(data)} bytes cannot be converted to f32 values (must be divisible by 4)"
        )
    values = np.frombuffer(data, dtype="<f4")
    bad = np.flatnonzero(~np.isfinite(values))
    if bad.size:
        place = int(bad[0])
        shown = "NaN" if np.isnan(values[place]) else "inf" if values[place] > 0 else "-inf"
        raise InvalidArgument(f"Non-finite float value at embedding index {place}: {shown}")
    return values
