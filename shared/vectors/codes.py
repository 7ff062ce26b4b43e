"""Vectors in a byte per dimension: what is far away is told from a quarter of the memory, and nothing near is lost.

A scan waits for memory. So each vector x stands here as whole numbers from -127 to 127 and a scale, together its
*shadow* s. A product with the query's own shadow is exact in integers, and by Cauchy and Schwarz

    |x.q - s.t| <= |x - s| |q| + |s| |q - t|        t: the shadow of the query q

where the lengths on the right are known. So each row has a least and a greatest possible distance, and whatever is
not among those that may be nearest need not be read. Of embeddings about twice as many as are wanted are left.

For cosine the shadows are those of the vectors scaled to length 1.
"""

from __future__ import annotations

from typing import Final, NamedTuple

import numkong
import numpy as np
import numpy.typing as npt

from shared.vectors.space import Space

Vectors = npt.NDArray[np.float32]
Numbers = npt.NDArray[np.int8]
Terms = npt.NDArray[np.float32]
Floats = npt.NDArray[np.float64]
RowNumbers = npt.NDArray[np.int64]

DIMENSION_MAX: Final = 2**31 // 127**2
"""A product of longer vectors could exceed the 32 bits that it is added up in."""

TERMS: Final = 4
_SCALE, _ERROR, _LENGTH, _SQUARE = range(TERMS)
_MOST: Final = 127
_INFINITE: Final = np.float32(np.inf)
_CHUNK_ROWS: Final = 4096
_BLOCK_ROWS: Final = 2048
"""Rows that are gathered at once: they stay in the processor's cache until they are multiplied."""
_ALL_SHARE: Final = 4
"""Where one row in so many is wanted, multiplying all of them costs less than gathering."""
_UNIT: Final = 2.0**-24
"""Half the distance from 1 to the next float32: the relative error of one rounding."""
_UP: Final = 1 + 2.0**-18
"""What is multiplied by this is not less than before for a few roundings."""
_TINY: Final = 2.0**-120
_HUGE: Final = 2.0**120
"""Squares of lengths beyond these make float32 lose bits or overflow: nothing is said of them."""


class Codes(NamedTuple):
    """Of n vectors: `numbers` int8 [n, d], and `terms` float32 [n, 4]: what each is multiplied by, how far shadow and
    vector are apart, how long the shadow is (these two rounded up), the square of the vector's length. In one array,
    because those of a row are read together.
    """

    numbers: Numbers
    terms: Terms


def encode(space: Space, vectors: Vectors) -> Codes:
    """Of float32 [n, d]."""
    codes = Codes(np.empty(vectors.shape, np.int8), np.empty((len(vectors), TERMS), np.float32))
    for at in range(0, len(vectors), _CHUNK_ROWS):
        chunk = slice(at, at + _CHUNK_ROWS)
        _encode(space, vectors[chunk].astype(np.float64), codes.numbers[chunk], codes.terms[chunk])
    return codes


def _encode(space: Space, vectors: Floats, numbers: Numbers, terms: Terms) -> None:
    """Into `numbers` and `terms`; `vectors` is overwritten."""
    if space is Space.COSINE:
        norms = np.sqrt(_squares(vectors))
        vectors /= np.where(norms > 0, norms, 1.0)[:, None]
    scales = (np.abs(vectors).max(axis=1) / _MOST).astype(np.float32)
    np.nextafter(scales, _INFINITE, out=scales)  # never 0, and nothing that is divided by it exceeds _MOST
    wide = scales[:, None].astype(np.float64)
    shadows = np.rint(vectors / wide)
    numbers[:] = shadows
    shadows *= wide
    squares = _squares(vectors)
    vectors -= shadows
    with np.errstate(over="ignore"):  # infinite: nothing is said about such a row
        terms[:, _SCALE] = scales
        terms[:, _ERROR] = np.sqrt(_squares(vectors)) * _UP
        terms[:, _LENGTH] = np.sqrt(_squares(shadows)) * _UP
        terms[:, _SQUARE] = squares


def _squares(vectors: Floats) -> Floats:
    squares: Floats = np.einsum("ij,ij->i", vectors, vectors)
    return squares


def candidates(
    space: Space, queries: Vectors, codes: Codes, k: int, rows: RowNumbers | None = None
) -> list[RowNumbers | None]:
    """For each of `queries` [q, d] those of all rows, or of `rows` (ascending), that may be among the k (at most as
    many as there are) nearest by `shared.vectors.distance.distances`; None where the query's magnitude forbids to say.
    """
    asked = encode(space, queries)
    terms = codes.terms if rows is None else codes.terms.take(rows, axis=0)
    unknown = np.flatnonzero(~(terms[:, _SQUARE] < _HUGE))
    found: list[RowNumbers | None] = []
    for query, product in zip(asked.terms, _products(asked.numbers, codes.numbers, rows), strict=True):
        if _TINY < query[_SQUARE] < _HUGE:
            places = _shortlist(space, query, product, terms, unknown, k)
            found.append(places if rows is None else rows[places])
        else:
            found.append(None)
    return found


def _products(queries: Numbers, numbers: Numbers, rows: RowNumbers | None) -> Vectors:
    """float32 [q, n], or of `rows`: exact, or rounded once."""
    if rows is not None and _ALL_SHARE * len(rows) >= len(numbers):
        return _products(queries, numbers, None)[:, rows]
    packed = numkong.dots_pack(queries)
    count = len(numbers) if rows is None else len(rows)
    found = np.empty((len(queries), count), np.float32)
    gathered = np.empty((0 if rows is None else min(count, _BLOCK_ROWS), numbers.shape[1]), np.int8)
    for at in range(0, count, _BLOCK_ROWS):
        end = min(at + _BLOCK_ROWS, count)
        if rows is None:
            block = numbers[at:end]
        else:
            block = gathered[: end - at]
            np.take(numbers, rows[at:end], axis=0, out=block, mode="clip")  # "raise" would make a copy first
        found[:, at:end] = np.asarray(numkong.dots_packed(block, packed)).T
    return found


def _shortlist(space: Space, query: Terms, product: Terms, terms: Terms, unknown: RowNumbers, k: int) -> RowNumbers:
    """Places whose least possible distance is not above the k-th greatest possible one; those that are `unknown` may be
    anywhere.

    Beside what the shadows leave open there are the errors of float32, here (not 16 roundings, of terms that are known)
    and of the distances at last.
    """
    scale, apart, shadow, _ = query.tolist()
    own = shadow + apart  # at least the query's length
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
