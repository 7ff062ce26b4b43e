"""Distances between vectors: one exact definition, and an exact scan that is nearly as fast as BLAS.

```text
l2      sum((x - y)**2)            squared, as the API shows it
cosine  1 - x.y / (|x| |y|)        1 when either is zero
ip      1 - x.y                    may be negative
```

`distances` computes in float64, each row by itself, and rounds once to float32. So the same two vectors have the same
distance in a segment, in the tail and on any worker, and parts merge exactly. What exceeds float32 becomes infinite.
It multiplies in one step and adds in another, each number rounded as IEEE 754 says, in the order of numpy's pairwise
sum, which depends on the dimension alone: the bits are those of every processor. BLAS has another order for each
processor, and on some of them for each place in a matrix; einsum has another one for many rows of more than 8192
numbers than for a single row.

`nearest` computes all products by BLAS in float32, whose error depends on processor, shapes and threads, keeps every
row that could be among the k nearest given the worst case of that error, and lets `distances` decide among those. Where
there are codes of the vectors (`shared.vectors.codes`), they exclude most rows before, for a fraction of the time.
"""

from __future__ import annotations

from typing import Final, NamedTuple

import numpy as np

from shared.process import work
from shared.vectors.arrays import (
    Distances,
    Float32Array,
    Float32Matrix,
    Float64Array,
    Float64Matrix,
    Indices,
    RowNumbers,
    SquaredNorms,
    Vector,
    Vectors,
)
from shared.vectors.codes import Codes, candidates
from shared.vectors.space import Space

_CHUNK_FLOATS: Final = 1 << 20
_WIDE_FLOATS: Final = 1 << 16
"""Numbers that are widened to float64 at once: they stay in the processor's second cache until they are added up."""
_BLOCK_ROWS: Final = 256
"""Number of rows that BLAS multiplies at once: several queries are compared with them while they are in the fastest
cache.
"""
_DECIDED_MAX: Final = 64
"""Up to so many rows are all measured exactly: excluding some of them first would take longer."""
_CANDIDATES_MAX: Final = 16
"""A shortlist of more than so many times k rows was made with too coarse a bound."""
_UNIT: Final = 2.0**-24
"""Half the distance from 1 to the next float32: the relative error of one rounding."""
_CHECKED_FLOATS: Final = 1 << 22
"""Numbers that are read between two looks at whether the work is still wanted (`shared.process.work`): some 3 ms."""
_TINY: Final = 2.0**-120
"""Below this a float32 sum of squares has lost bits to underflow, and its relative error bound means nothing."""


class Nearest(NamedTuple):
    """The nearest rows and their distances, parallel, nearest first, ties by row."""

    rows: RowNumbers
    distances: Distances


def distances(space: Space, query: Vector, vectors: Vectors) -> Distances:
    """Exact distances, float32 [n], of `vectors` [n, d] to `query` [d]."""
    found = np.empty(len(vectors), dtype=np.float32)
    wide = query.astype(np.float64)
    step = max(1, _WIDE_FLOATS // max(1, vectors.shape[1]))
    with np.errstate(over="ignore"):
        for at in range(0, len(vectors), step):
            work.check()
            found[at : at + step] = _wide_distances(space, wide, vectors[at : at + step])
    return found


def _wide_distances(space: Space, query: Float64Array, vectors: Vectors) -> Float64Array:
    """Distances in float64 [n], of as many vectors as fit into the second cache."""
    # In C order, whatever the order of `vectors`: the sum of a row then adds up what lies side by side.
    wide = vectors.astype(np.float64, order="C")
    if space is Space.L2:
        wide -= query
        return _squares(wide)
    norms = None
    if space is Space.COSINE:
        norms = np.sqrt(_squares(wide)) * np.sqrt(_squares(query.copy()))
        wide[...] = vectors
    wide *= query
    products: Float64Array = np.add.reduce(wide, axis=1)
    if norms is not None:
        products = np.divide(products, norms, out=np.zeros_like(products), where=norms > 0)
    return 1.0 - products


def _squares(vectors: Float64Matrix) -> Float64Array:
    """The square of the length of each vector; `vectors` is overwritten."""
    vectors *= vectors
    squares: Float64Array = np.add.reduce(vectors, axis=-1)
    return squares


def squared_norms(vectors: Vectors) -> SquaredNorms:
    """The square of the length of each of `vectors` [n, d]: `nearest` needs it of every vector, and a caller that scans
    the same vectors again had better keep it.
    """
    step = _checked_rows(vectors)
    if len(vectors) > step:
        return np.concatenate([squared_norms(vectors[at : at + step]) for at in range(0, len(vectors), step)])
    work.check()
    with np.errstate(over="ignore"):
        norms: SquaredNorms = np.einsum("ij,ij->i", vectors, vectors)
    return norms


def _checked_rows(vectors: Vectors) -> int:
    """The number of vectors of _CHECKED_FLOATS numbers."""
    return max(_BLOCK_ROWS, _CHECKED_FLOATS // max(1, int(vectors.shape[1])))


def nearest(
    space: Space,
    query: Vector,
    vectors: Vectors,
    k: int,
    *,
    rows: RowNumbers | None = None,
    norms: SquaredNorms | None = None,
    codes: Codes | None = None,
) -> Nearest:
    """The k nearest of `vectors` [n, d], or of those at `rows` (ascending), by exact distance; all of them when there
    are fewer than k.

    `norms` is `squared_norms(vectors)` and `codes` is `shared.vectors.codes.encode(space, vectors)`, when the caller
    has them; with codes, norms are of no use.
    """
    return nearest_many(space, query[None, :], vectors, k, rows=rows, norms=norms, codes=codes)[0]


def nearest_many(
    space: Space,
    queries: Vectors,
    vectors: Vectors,
    k: int,
    *,
    rows: RowNumbers | None = None,
    norms: SquaredNorms | None = None,
    codes: Codes | None = None,
) -> list[Nearest]:
    """`nearest` for each of `queries` [q, d], sharing the passes over memory."""
    count = len(vectors) if rows is None else len(rows)
    if k <= 0 or count == 0:
        return [Nearest(np.empty(0, np.int64), np.empty(0, np.float32)) for _ in queries]
    if count <= max(k, _DECIDED_MAX):
        return [_decide(space, query, vectors, k, np.arange(count), rows) for query in queries]
    if rows is not None and norms is not None:
        norms = norms[rows]
    found: list[Nearest] = []
    block = max(1, 8 * _CHUNK_FLOATS // count)
    for at in range(0, len(queries), block):
        batch = queries[at : at + block]
        if codes is not None:
            found += _nearest_coded(space, batch, vectors, k, rows, codes)
            continue
        with np.errstate(over="ignore", invalid="ignore"):
            if rows is not None:
                products, norms = _products_of(batch, vectors, rows, norms)
            else:
                products, norms = _products(batch, vectors), squared_norms(vectors) if norms is None else norms
        for query, product in zip(batch, products, strict=True):
            near = _shortlist(space, query, product, norms, k)
            found.append(_decide(space, query, vectors, k, near, rows))
    return found


def _nearest_coded(
    space: Space, queries: Vectors, vectors: Vectors, k: int, rows: RowNumbers | None, codes: Codes
) -> list[Nearest]:
    """`nearest_many` where there are codes: by way of their candidates, and without codes for queries about which these
    say nothing.
    """
    near = candidates(space, queries, codes, k, rows)
    unknown = [number for number, chosen in enumerate(near) if chosen is None]
    without_codes = iter(nearest_many(space, queries[unknown], vectors, k, rows=rows) if unknown else ())
    return [
        next(without_codes) if chosen is None else nearest(space, query, vectors, k, rows=chosen)
        for query, chosen in zip(queries, near, strict=True)
    ]


def _products(queries: Vectors, vectors: Vectors) -> Float32Matrix:
    """Inner products, float32 [q, n], by BLAS."""
    found = np.empty((len(queries), len(vectors)), dtype=np.float32)
    if len(queries) == 1:
        step = _checked_rows(vectors)
        for at in range(0, len(vectors), step):
            work.check()
            np.matmul(vectors[at : at + step], queries[0], out=found[0, at : at + step])
        return found
    columns = np.ascontiguousarray(queries.T)
    for at in range(0, len(vectors), _BLOCK_ROWS):
        work.check()
        found[:, at : at + _BLOCK_ROWS] = (vectors[at : at + _BLOCK_ROWS] @ columns).T
    return found


def _products_of(
    queries: Vectors, vectors: Vectors, rows: RowNumbers, norms: SquaredNorms | None
) -> tuple[Float32Matrix, SquaredNorms]:
    """`_products` of chosen rows, and their squared norms, made along the way when they are not given."""
    if 2 * len(rows) > len(vectors):  # computing all of them costs less than gathering
        norms = squared_norms(vectors)[rows] if norms is None else norms
        return _products(queries, vectors)[:, rows], norms
    found = np.empty((len(queries), len(rows)), dtype=np.float32)
    own = np.empty(len(rows), dtype=np.float32) if norms is None else norms
    columns = np.ascontiguousarray(queries.T)
    block = np.empty((_BLOCK_ROWS, vectors.shape[1]), dtype=np.float32)
    for at in range(0, len(rows), _BLOCK_ROWS):
        work.check()
        chosen = rows[at : at + _BLOCK_ROWS]
        gathered = block[: len(chosen)]
        np.take(vectors, chosen, axis=0, out=gathered, mode="clip")  # "raise" would make a copy first
        found[:, at : at + _BLOCK_ROWS] = (gathered @ columns).T
        if norms is None:
            np.einsum("ij,ij->i", gathered, gathered, out=own[at : at + _BLOCK_ROWS])
    return found, own


def _shortlist(space: Space, query: Vector, product: Float32Array, norms: SquaredNorms, k: int) -> Indices:
    """Which of n vectors may be among the k nearest: those whose least possible distance is not above the k-th of the
    greatest possible ones. `product` [n] is of the query and each vector. First with one bound of the error for all of
    them, which takes a quarter of the time.
    """
    near = _coarse_shortlist(space, query, product, norms, k)
    if near is not None:
        return near
    about, error = _bounds(space, query, product.astype(np.float64), norms.astype(np.float64))
    # What overflowed or lost its bits can be anywhere: it stays, and excludes nothing.
    unknown = ~np.isfinite(about) | ~np.isfinite(error)
    about[unknown] = 0.0
    error[unknown] = np.inf
    limit = np.partition(about + error, k - 1)[k - 1]
    return np.flatnonzero(about - error <= limit)


def _coarse_shortlist(
    space: Space, query: Vector, product: Float32Array, norms: SquaredNorms, k: int
) -> Indices | None:
    """`_shortlist` in float32, by the greatest error of all vectors; None where that excludes too few."""
    own = float(np.einsum("i,i->", query, query, dtype=np.float64))
    least, most = float(norms.min()), float(norms.max())
    if not (_TINY < own < 1 / _TINY and most < 1 / _TINY and (space is not Space.COSINE or least > _TINY)):
        return None
    both = np.sqrt(most * own)
    if space is Space.L2:
        about, size = norms - 2.0 * product, most + 2.0 * both + own
    elif space is Space.IP:
        about, size = -product, both
    else:
        about, size = product / -np.sqrt(norms), 2.0 * np.sqrt(own)
    # The terms of `_bounds` for the greatest row, and what the float32 steps here and the last rounding add.
    error = (1.01 * (len(query) + 4) + 16) * _UNIT * size + 2 * _UNIT * (1.0 if space is Space.IP else 0.0)
    error += len(query) * _TINY
    limit = float(np.partition(about, k - 1)[k - 1]) + 2.0 * error
    near = np.flatnonzero(about <= limit)
    return near if len(near) <= max(1000, _CANDIDATES_MAX * k) else None


def _bounds(
    space: Space, query: Vector, product: Float64Array, norms: Float64Array
) -> tuple[Float64Array, Float64Array]:
    """Distances [n] by the float32 products, and how far each may be from the result of `distances`.

    A float32 sum of d products, in whatever order, is off by at most d * 2**-24 (a little more) of the sum of their
    magnitudes, which is at most |x| |y|; one more rounding makes the final float32. The 1.01 and the 4 cover
    second-order terms, the error of the norms and that rounding.
    """
    share = 1.01 * (len(query) + 4) * _UNIT
    wide = query.astype(np.float64)
    own = float(wide @ wide)
    with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
        both = np.sqrt(norms * (1 + share)) * np.sqrt(own)
        if space is Space.L2:
            about = norms - 2.0 * product + own
            error = share * (norms + 2.0 * both) + 4 * _UNIT * (norms + 2.0 * both + own)
        elif space is Space.IP:
            about = 1.0 - product
            error = share * both + 4 * _UNIT * (1.0 + both)
        else:
            about = 1.0 - product / np.sqrt(norms * own)
            error = np.full(len(norms), 4.0 * share + 8 * _UNIT)
            lost = (norms < _TINY) | ~np.isfinite(norms) | (own < _TINY)
            error[lost] = np.inf
    return about, error + len(query) * _TINY


def _decide(space: Space, query: Vector, vectors: Vectors, k: int, near: Indices, rows: RowNumbers | None) -> Nearest:
    """The k nearest by exact distance of the vectors `near`: indices into `rows`, or row numbers where that is None."""
    chosen = near if rows is None else rows[near]
    exact = distances(space, query, vectors[chosen])
    order = np.lexsort((chosen, exact))[:k]
    return Nearest(chosen[order], exact[order])
