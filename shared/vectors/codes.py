"""Vectors quantised to a byte per dimension (scalar quantisation): a scan reads a quarter of the memory, and no near
row is lost.

A scan waits for memory. So each vector x is stored as whole numbers from -127 to 127 and a scale, whose product is the
*quantised vector* s. The product with the quantised query is exact in integers, and by Cauchy and Schwarz

```text
|x.q - s.t| <= |x - s| |q| + |s| |q - t|        t: the quantised query, of the query q
```

where the lengths on the right are known. So each row has a least and a greatest possible distance, and rows that cannot
be among the nearest need not be read. Of embeddings about twice as many as are wanted are left.

For cosine the vectors are scaled to length 1 before they are quantised.
"""

from __future__ import annotations

from typing import Final, NamedTuple

import numkong
import numpy as np

from shared.process import work
from shared.vectors.arrays import (
    Float32Array,
    Float32Matrix,
    Float64Array,
    Float64Matrix,
    Int8Matrix,
    RowNumbers,
    Vectors,
)
from shared.vectors.space import Space

DIMENSION_MAX: Final = 2**31 // 127**2
"""Longer vectors have no codes: a product of theirs could exceed the 32 bits that it is added up in."""

TERMS: Final = 4
"""Number of float32 numbers that stand beside the codes of each vector (`Codes.terms`)."""

_SCALE, _ERROR, _LENGTH, _SQUARE = range(TERMS)
_MOST: Final = 127
_INFINITE: Final = np.float32(np.inf)
_CHUNK_ROWS: Final = 4096
_BLOCK_ROWS: Final = 2048
"""Number of rows that are gathered at once: they stay in the processor's cache until they are multiplied."""
_ALL_SHARE: Final = 4
"""When one row in so many or more is wanted, multiplying all of them costs less than gathering."""
_UNIT: Final = 2.0**-24
"""Half the distance from 1 to the next float32: the relative error of one rounding."""
_UP: Final = 1 + 2.0**-18
"""A factor that makes up for a few roundings downwards: a length times this is not less than the true length."""
_TINY: Final = 2.0**-120
_HUGE: Final = 2.0**120
"""Squares of lengths outside of [_TINY, _HUGE] make float32 lose bits or overflow: about such vectors nothing is said.
"""


class Codes(NamedTuple):
    """n quantised vectors: `numbers` int8 [n, d], and `terms` float32 [n, 4]: the scale that the numbers are multiplied
    by, the distance between vector and quantised vector, the length of the quantised vector (these two rounded up), the
    square of the vector's length. The terms are one array, because those of a row are read together.
    """

    numbers: Int8Matrix
    terms: Float32Matrix


def encode(space: Space, vectors: Vectors) -> Codes:
    """The codes of `vectors` [n, d] for scans in this space. d is at most DIMENSION_MAX."""
    codes = Codes(np.empty(vectors.shape, np.int8), np.empty((len(vectors), TERMS), np.float32))
    for at in range(0, len(vectors), _CHUNK_ROWS):
        chunk = slice(at, at + _CHUNK_ROWS)
        _encode(space, vectors[chunk].astype(np.float64), codes.numbers[chunk], codes.terms[chunk])
    return codes


def _encode(space: Space, vectors: Float64Matrix, numbers: Int8Matrix, terms: Float32Matrix) -> None:
    """Writes the codes of `vectors` into `numbers` and `terms`; `vectors` is overwritten."""
    if space is Space.COSINE:
        norms = np.sqrt(_squares(vectors))
        vectors /= np.where(norms > 0, norms, 1.0)[:, None]
    scales = (np.abs(vectors).max(axis=1) / _MOST).astype(np.float32)
    np.nextafter(scales, _INFINITE, out=scales)  # never 0, and nothing that is divided by it exceeds _MOST
    wide = scales[:, None].astype(np.float64)
    quantised = np.rint(vectors / wide)
    numbers[:] = quantised
    quantised *= wide
    squares = _squares(vectors)
    vectors -= quantised
    with np.errstate(over="ignore"):  # infinite: nothing is said about such a row
        terms[:, _SCALE] = scales
        terms[:, _ERROR] = np.sqrt(_squares(vectors)) * _UP
        terms[:, _LENGTH] = np.sqrt(_squares(quantised)) * _UP
        terms[:, _SQUARE] = squares


def _squares(vectors: Float64Matrix) -> Float64Array:
    """The square of the length of each vector."""
    squares: Float64Array = np.einsum("ij,ij->i", vectors, vectors)
    return squares


def candidates(
    space: Space, queries: Vectors, codes: Codes, k: int, rows: RowNumbers | None = None
) -> list[RowNumbers | None]:
    """For each of `queries` [q, d] the rows, of all or of `rows` (ascending), that may be among the k nearest by
    `shared.vectors.distance.distances`; None where the query is so long or short that nothing can be said. k is at most
    the number of rows.
    """
    encoded = encode(space, queries)
    terms = codes.terms if rows is None else codes.terms.take(rows, axis=0)
    unknown = np.flatnonzero(~(terms[:, _SQUARE] < _HUGE))
    found: list[RowNumbers | None] = []
    for query, product in zip(encoded.terms, _products(encoded.numbers, codes.numbers, rows), strict=True):
        work.check()
        if _TINY < query[_SQUARE] < _HUGE:
            near = _shortlist(space, query, product, terms, unknown, k)
            found.append(near if rows is None else rows[near])
        else:
            found.append(None)
    return found


def _products(queries: Int8Matrix, numbers: Int8Matrix, rows: RowNumbers | None) -> Float32Matrix:
    """Inner products, float32 [q, n], of all rows or of `rows`: exact, or rounded once."""
    if rows is not None and _ALL_SHARE * len(rows) >= len(numbers):
        return _products(queries, numbers, None)[:, rows]
    packed = numkong.dots_pack(queries)
    count = len(numbers) if rows is None else len(rows)
    found = np.empty((len(queries), count), np.float32)
    gathered = np.empty((0 if rows is None else min(count, _BLOCK_ROWS), numbers.shape[1]), np.int8)
    for at in range(0, count, _BLOCK_ROWS):
        work.check()
        end = min(at + _BLOCK_ROWS, count)
        if rows is None:
            block = numbers[at:end]
        else:
            block = gathered[: end - at]
            np.take(numbers, rows[at:end], axis=0, out=block, mode="clip")  # "raise" would make a copy first
        found[:, at:end] = np.asarray(numkong.dots_packed(block, packed)).T
    return found


def _shortlist(
    space: Space, query: Float32Array, product: Float32Array, terms: Float32Matrix, unknown: RowNumbers, k: int
) -> RowNumbers:
    """Which of n rows have a least possible distance that is not above the k-th of the greatest possible ones. `query`
    are the query's terms, `product` [n] and `terms` [n, 4] are of the rows; rows that are `unknown` may be anywhere.

    Beside the error of quantisation there are those of float32, here (not 16 roundings, of terms that are known) and of
    the exact distances.
    """
    scale, apart, length, _ = query.tolist()
    own = length + apart  # at least the query's length
    times = 2.0 if space is Space.L2 else 1.0
    with np.errstate(over="ignore", invalid="ignore"):
        about = product * terms[:, _SCALE]
        about *= -times * scale
        error = terms[:, _ERROR] * (times * own * _UP)
        error += terms[:, _LENGTH] * (times * (apart + 16 * _UNIT * own) * _UP)
        if space is Space.L2:
            about += terms[:, _SQUARE]
            error += terms[:, _SQUARE] * (16 * _UNIT)
            error += 16 * _UNIT * own * own
        else:
            error += 16 * _UNIT
    about[unknown] = 0.0
    error[unknown] = np.inf
    limit = np.partition(about + error, k - 1)[k - 1]
    about -= error
    return np.flatnonzero(about <= limit)
