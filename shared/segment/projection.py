"""Guides of fewer dimensions: most of what a graph compares is in a few directions of its vectors.

Embeddings fill their space unevenly. Seen along the directions in which they vary most, rows near each other stay near
each other at half of the dimensions or fewer, and a search, which reads some thousand vectors at random, takes that
much less time; so does adding a row. The order is then about right, not exact: a search finds a few rows more than are
wanted, and the whole vectors decide among them. (A linear projection for the graph, whole vectors for the last step:
Tepper et al., "LeanVec: Searching vectors faster by making them fit", TMLR 2024.)

A *basis* has one such direction in each column: the eigenvectors of the second moments of a sample, those of the
greatest eigenvalues first. Inner products and distances of vectors multiplied by it are those of their shadows in these
directions.

Whether that is good enough is measured, not assumed: of a sample of rows, how many of the eleven nearest to some of
them are among the twenty-one nearest by their shadows. A search looks at more (`reach`), because the queries of users
lie further from the rows than these from each other, and what is measured hardly depends on the number of rows (0.998
at 192 of 384 dimensions for 3,000 to 60,000 rows of real text). Vectors without such directions keep all dimensions. A
graph that is extended keeps its basis as long as that serves the rows that are added, too.

A query may be of another kind than the rows, and have much of its length in directions that they hardly have: it
*strays* from the basis, shadows say little, and many more of them are looked at.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt

from shared.errors import Corrupt
from shared.segment.format import BASIS_MAGIC, HEADER_BYTES
from shared.segment.graph_vectors import Vectors, guides
from shared.segment.mapping import map_bytes
from shared.vectors.arrays import Mask
from shared.vectors.distance import distances, nearest_many
from shared.vectors.space import Space

DIMENSION_MIN: Final = 128
"""Shorter vectors are compared in no time."""

DIMENSION_MAX: Final = 2048
"""The time to find directions grows with the third power; here it is some 5 s of CPU."""

ROWS_PER_DIMENSION_MIN: Final = 8
"""Fewer rows than so many times the dimension say too little about its directions."""

SHARES: Final = (0.25, 0.375, 0.5, 0.625, 0.75)
"""Of the dimensions: what is tried, in this order."""

FOUND_MIN: Final = 0.995
"""The part of the nearest rows that a new basis has to find."""

KEPT_FOUND_MIN: Final = 0.98
"""The same for one that is kept: building anew costs more than a few rows more in the beam."""

NEIGHBOURS: Final = 11
"""To a row itself, where that is not by inner product, and ten others."""

TESTED: Final = 21
PROBES: Final = 128

STRAY_MARGIN: Final = 1.5
STRAY_MIN: Final = 0.05
"""A query strays when the part of its square that lies off the basis is so many times greater than that of any row of
the sample, and not less than this: real questions have a fifth more than the texts that they ask for.
"""

STRAY_BEAMS: Final = 4
"""How many times the usual beam is looked at for it."""

_SAMPLE_ROWS: Final = 8192
_LANES: Final = 16
"""hnswlib compares so many numbers at a time."""


class Basis(NamedTuple):
    """What was found in so many `rows`: `directions` float32 [dimension, width], the width 0 when all dimensions are
    needed. `stray`: from what part of its square off these directions on a query strays.
    """

    directions: Vectors
    rows: int
    stray: float

    @property
    def width(self) -> int:
        return int(self.directions.shape[1])

    @classmethod
    def none(cls, rows: int, dimension: int) -> Basis:
        """All dimensions are needed, or better kept."""
        return cls(np.empty((dimension, 0), np.float32), rows, 1.0)


def reach(wanted: int, ef_search: int, *, stray: bool = False) -> int:
    """How many rows nearest by their shadows are looked at for the `wanted` nearest."""
    usual = max(20 + wanted + wanted // 2, ef_search * 35 // 100)
    return STRAY_BEAMS * max(usual, ef_search) if stray else usual


def enough_rows(rows: int, dimension: int) -> bool:
    """Whether a basis may be looked for."""
    return DIMENSION_MIN <= dimension <= DIMENSION_MAX and rows >= ROWS_PER_DIMENSION_MIN * dimension


def find_basis(space: Space, vectors: Vectors) -> Basis:
    """The smallest good one for the guides of these vectors [n, d]."""
    rows, dimension = vectors.shape
    sample = guides(space, vectors[_spread(0, rows, _SAMPLE_ROWS)])
    every = _directions(sample)
    probes = _spread(0, len(sample), PROBES)
    for share in SHARES:
        directions = np.ascontiguousarray(every[:, : round(share * dimension / _LANES) * _LANES])
        if found(space, sample, probes, directions) >= FOUND_MIN:
            off = float(_off(sample, sample @ directions).max())
            return Basis(directions, rows, max(STRAY_MIN, STRAY_MARGIN * off))
    return Basis.none(rows, dimension)


def still_good(space: Space, vectors: Vectors, begin: int, basis: Basis) -> bool:
    """Whether a basis that was found for the first `begin` vectors finds the neighbours of the others as well."""
    added = _spread(begin, len(vectors), PROBES)
    rows = np.union1d(_spread(0, len(vectors), _SAMPLE_ROWS), added)
    share = found(space, guides(space, vectors[rows]), np.searchsorted(rows, added), basis.directions)
    return share >= KEPT_FOUND_MIN


def strays(whole: Vectors, basis: Basis) -> Mask:
    """Which of these guides of queries do: bool [q]."""
    return _off(whole, projected_each(whole, basis)) > basis.stray


def found(space: Space, sample: Vectors, probes: npt.NDArray[np.int64], directions: Vectors) -> float:
    """Which part of the NEIGHBOURS nearest of each probe (a row of the sample of guides) are among the TESTED nearest
    by their shadows. Of rows that are equally near each counts as well as the others, so distances are compared that
    are equal for equal rows: those in a product of matrices need not be.
    """
    by_shadow = _apart(space, sample @ directions, sample[probes] @ directions)
    tested = np.argpartition(by_shadow, TESTED - 1, axis=0)[:TESTED].T
    measure = Space.L2 if space is Space.L2 else Space.IP  # as the graph compares guides
    nearest = nearest_many(measure, sample[probes], sample, NEIGHBOURS)
    hits = [
        np.count_nonzero(distances(measure, sample[probe], sample[rows]) <= neighbours.distances[-1])
        for probe, rows, neighbours in zip(probes, tested, nearest, strict=True)
    ]
    return float(np.minimum(hits, NEIGHBOURS).mean()) / NEIGHBOURS


def _directions(sample: Vectors) -> Vectors:
    scale = float(np.abs(sample).max(initial=0.0))
    if scale > 0:
        sample = sample / np.float32(scale)  # no square of it overflows
    _, vectors = np.linalg.eigh((sample.T @ sample).astype(np.float64))
    directions: Vectors = vectors[:, ::-1].astype(np.float32)
    return directions


def _off(whole: Vectors, shadows: Vectors) -> npt.NDArray[np.float64]:
    """The part of the square of each that its shadow lacks; 0 for those without length."""
    squares = np.einsum("ij,ij->i", whole, whole, dtype=np.float64)
    inside = np.einsum("ij,ij->i", shadows, shadows, dtype=np.float64)
    off: npt.NDArray[np.float64] = 1.0 - np.divide(inside, squares, out=np.ones_like(squares), where=squares > 0)
    return off


def _apart(space: Space, vectors: Vectors, probes: Vectors) -> Vectors:
    """What the graph orders by, but for what is the same for all vectors: float32 [n, probes], less is nearer."""
    apart: Vectors = vectors @ probes.T
    if space is Space.L2:
        apart *= -2.0
        apart += np.einsum("ij,ij->i", vectors, vectors)[:, None]
        return apart
    return np.negative(apart, out=apart)


def _spread(begin: int, end: int, count: int) -> npt.NDArray[np.int64]:
    """At most `count` rows of [begin, end), evenly apart."""
    return np.unique(np.linspace(begin, end - 1, count).astype(np.int64))


def projected(whole: Vectors, basis: Basis | None) -> Vectors:
    """The shadows of these guides; they themselves without a basis, or when all dimensions are needed. The last bits of
    a shadow depend on its place among the others.
    """
    return whole @ basis.directions if basis is not None and basis.width else whole


def projected_each(whole: Vectors, basis: Basis | None) -> Vectors:
    """`projected`, at twice the cost, but each as if it were alone: what a query is compared by must not depend on the
    queries that it happens to come with.
    """
    return np.matmul(whole[:, None, :], basis.directions)[:, 0] if basis is not None and basis.width else whole


def write_basis(path: Path, basis: Basis) -> None:
    numbers = (basis.directions.shape[0], basis.width, basis.rows)
    header = BASIS_MAGIC + b"".join(number.to_bytes(8, "little") for number in numbers)
    path.write_bytes(header + np.array([basis.stray], "<f4").tobytes() + basis.directions.astype("<f4").tobytes())


def open_basis(path: Path, dimension: int) -> Basis:
    """Raises Corrupt."""
    mapped = map_bytes(path, HEADER_BYTES + 4)
    header = mapped[:HEADER_BYTES].tobytes()
    of, width, rows = (int.from_bytes(header[at : at + 8], "little") for at in (8, 16, 24))
    if header[:8] != BASIS_MAGIC or of != dimension or width > dimension:
        raise Corrupt(f"{path.name} is no basis for vectors of {dimension} dimensions")
    if len(mapped) != HEADER_BYTES + 4 + 4 * dimension * width:
        raise Corrupt(f"{path.name} has {len(mapped)} bytes")
    numbers = mapped[HEADER_BYTES:].view("<f4")
    return Basis(numbers[1:].reshape(dimension, width), rows, float(numbers[0]))
