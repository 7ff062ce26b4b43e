"""Graph vectors of fewer dimensions: most of what a graph compares is in a few directions of its vectors.

Embeddings fill their space unevenly. Projected on the directions in which they vary most, rows near each other stay
near each other at half of the dimensions or fewer, and a search, which reads some thousand vectors at random, takes
that much less time; so does adding a row. The order is then about right, not exact: a search takes a few more
candidates than are wanted, and the whole vectors decide among them. (A linear projection for the graph, whole vectors
for the last step: Tepper et al., "LeanVec: Searching vectors faster by making them fit", TMLR 2024.)

A *PCA basis* has one such direction in each column: the eigenvectors of the second moments of a sample, those of the
greatest eigenvalues first (principal component analysis without centring, so that inner products keep their meaning).
Inner products and distances of vectors multiplied by it are those of their projections.

Whether that is good enough is measured, not assumed: of a sample of rows, how many of the eleven nearest to some of
them are among the twenty-one nearest by their projections. A search takes more candidates than that (`oversampled`),
because the queries of users lie further from the rows than these from each other, and what is measured hardly depends
on the number of rows (0.998 at 192 of 384 dimensions for 3,000 to 60,000 rows of real text). Vectors without such
directions keep all dimensions. A graph that is extended keeps its basis as long as that serves the added rows, too.

A query may be of another kind than the rows, and have much of its length in directions that they hardly have: for such
an *out-of-distribution* query the order of the projections says little, and many more candidates are taken.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final, NamedTuple

import numpy as np

from shared.errors import Corrupt
from shared.segment.format import BASIS_MAGIC, HEADER_BYTES
from shared.segment.graph_vectors import graph_vectors
from shared.segment.mapping import map_bytes
from shared.vectors.arrays import Float32Matrix, Float64Array, Mask, RowNumbers, Vectors
from shared.vectors.distance import distances, nearest_many
from shared.vectors.space import Space

DIMENSION_MIN: Final = 128
"""Shorter vectors are compared in no time: no basis is looked for."""

DIMENSION_MAX: Final = 2048
"""For longer vectors no basis is looked for: the time grows with the third power; here it is some 5 s of CPU."""

ROWS_PER_DIMENSION_MIN: Final = 8
"""Fewer rows than so many times the dimension say too little about its directions."""

SHARES: Final = (0.25, 0.375, 0.5, 0.625, 0.75)
"""The parts of all dimensions that are tried, in this order."""

RECALL_MIN: Final = 0.995
"""The least `neighbour_recall` of a new basis."""

KEPT_RECALL_MIN: Final = 0.98
"""The least `neighbour_recall` of a basis that is kept: building anew costs more than a few more rows in the beam."""

NEIGHBOURS: Final = 11
"""How many nearest rows count: the row itself, where the order is not that of inner products, and ten others."""

CANDIDATES: Final = 21
"""Among how many rows that are nearest by their projections the neighbours are looked for."""

PROBES: Final = 128
"""How many rows of the sample have their neighbours looked for."""

OOD_MARGIN: Final = 1.5
OOD_MIN: Final = 0.05
"""A query is out of distribution when the part of its square that its projection lacks is more than OOD_MARGIN times
that of every row of the sample, and more than OOD_MIN: real questions have a fifth more than the texts they ask for.
"""

OOD_BEAMS: Final = 4
"""Factor by which more candidates than usual are taken for an out-of-distribution query."""

_SAMPLE_ROWS: Final = 8192
_LANES: Final = 16
"""hnswlib compares so many numbers at a time."""


class PcaBasis(NamedTuple):
    """A basis that was looked for in `rows` rows. `directions` is float32 [dimension, width], the width 0 when all
    dimensions are needed. `ood_from`: a query whose projection lacks more than this part of its square is out of
    distribution.
    """

    directions: Float32Matrix
    rows: int
    ood_from: float

    @property
    def width(self) -> int:
        """The number of dimensions of a projection; 0 when nothing is projected."""
        return int(self.directions.shape[1])

    @classmethod
    def none(cls, rows: int, dimension: int) -> PcaBasis:
        """A basis without directions: one was looked for, and all dimensions are needed, or better kept."""
        return cls(np.empty((dimension, 0), np.float32), rows, 1.0)


def oversampled(wanted: int, ef_search: int, *, out_of_distribution: bool = False) -> int:
    """How many candidates, nearest by their projections, are taken so that the `wanted` nearest are among them."""
    usual = max(20 + wanted + wanted // 2, ef_search * 35 // 100)
    return OOD_BEAMS * max(usual, ef_search) if out_of_distribution else usual


def enough_rows(rows: int, dimension: int) -> bool:
    """Whether a basis may be looked for."""
    return DIMENSION_MIN <= dimension <= DIMENSION_MAX and rows >= ROWS_PER_DIMENSION_MIN * dimension


def find_basis(space: Space, vectors: Vectors) -> PcaBasis:
    """The basis of fewest dimensions that is good enough for the graph vectors of `vectors` [n, d]."""
    rows, dimension = vectors.shape
    sample = graph_vectors(space, vectors[_evenly_spaced(0, rows, _SAMPLE_ROWS)])
    all_directions = _principal_directions(sample)
    probes = _evenly_spaced(0, len(sample), PROBES)
    for share in SHARES:
        directions = np.ascontiguousarray(all_directions[:, : round(share * dimension / _LANES) * _LANES])
        if neighbour_recall(space, sample, probes, directions) >= RECALL_MIN:
            lacking = float(_lacking(sample, sample @ directions).max())
            return PcaBasis(directions, rows, max(OOD_MIN, OOD_MARGIN * lacking))
    return PcaBasis.none(rows, dimension)


def still_serves(space: Space, vectors: Vectors, begin: int, basis: PcaBasis) -> bool:
    """Whether a basis that was found for the first `begin` vectors finds the neighbours of the others as well."""
    added = _evenly_spaced(begin, len(vectors), PROBES)
    rows = np.union1d(_evenly_spaced(0, len(vectors), _SAMPLE_ROWS), added)
    sample = graph_vectors(space, vectors[rows])
    return neighbour_recall(space, sample, np.searchsorted(rows, added), basis.directions) >= KEPT_RECALL_MIN


def out_of_distribution(whole: Vectors, basis: PcaBasis) -> Mask:
    """Which queries, given as whole graph vectors [q, d], the basis says little about: bool [q]."""
    return _lacking(whole, project_each(whole, basis)) > basis.ood_from


def neighbour_recall(space: Space, sample: Vectors, probes: RowNumbers, directions: Float32Matrix) -> float:
    """Which part of the NEIGHBOURS nearest rows of each probe (a row of the sample of graph vectors [n, d]) are among
    the CANDIDATES nearest by their projections. Of rows that are equally near each counts as well as the others, so
    distances are compared that are equal for equal rows: those in a product of matrices need not be.
    """
    by_projection = _comparable(space, sample @ directions, sample[probes] @ directions)
    candidates = np.argpartition(by_projection, CANDIDATES - 1, axis=0)[:CANDIDATES].T
    measure = Space.L2 if space is Space.L2 else Space.IP  # as the graph compares its vectors
    nearest = nearest_many(measure, sample[probes], sample, NEIGHBOURS)
    hits = [
        np.count_nonzero(distances(measure, sample[probe], sample[rows]) <= neighbours.distances[-1])
        for probe, rows, neighbours in zip(probes, candidates, nearest, strict=True)
    ]
    return float(np.minimum(hits, NEIGHBOURS).mean()) / NEIGHBOURS


def _principal_directions(sample: Vectors) -> Float32Matrix:
    """The eigenvectors of the sample's second moments as columns [d, d], those of the greatest eigenvalues first."""
    scale = float(np.abs(sample).max(initial=0.0))
    if scale > 0:
        sample = sample / np.float32(scale)  # no square of it overflows
    _, vectors = np.linalg.eigh((sample.T @ sample).astype(np.float64))
    directions: Float32Matrix = vectors[:, ::-1].astype(np.float32)
    return directions


def _lacking(whole: Vectors, projections: Vectors) -> Float64Array:
    """The part of the square of each graph vector that its projection lacks; 0 for those without length."""
    squares = np.einsum("ij,ij->i", whole, whole, dtype=np.float64)
    inside = np.einsum("ij,ij->i", projections, projections, dtype=np.float64)
    lacking: Float64Array = 1.0 - np.divide(inside, squares, out=np.ones_like(squares), where=squares > 0)
    return lacking


def _comparable(space: Space, vectors: Vectors, probes: Vectors) -> Float32Matrix:
    """Distances as the graph orders by, less a number for each probe: float32 [n, probes], less is nearer."""
    products: Float32Matrix = vectors @ probes.T
    if space is Space.L2:
        products *= -2.0
        products += np.einsum("ij,ij->i", vectors, vectors)[:, None]
        return products
    return np.negative(products, out=products)


def _evenly_spaced(begin: int, end: int, count: int) -> RowNumbers:
    """At most `count` rows of [begin, end), evenly apart."""
    return np.unique(np.linspace(begin, end - 1, count).astype(np.int64))


def project(whole: Vectors, basis: PcaBasis | None) -> Vectors:
    """The projections [n, width] of whole graph vectors [n, d]; these themselves without a basis, or when all
    dimensions are needed. The last bits of a projection depend on its place among the others.
    """
    return whole @ basis.directions if basis is not None and basis.width else whole


def project_each(whole: Vectors, basis: PcaBasis | None) -> Vectors:
    """`project`, at twice the cost, but each vector as if it were alone: what a query is compared by must not depend on
    the queries that it happens to come with.
    """
    return np.matmul(whole[:, None, :], basis.directions)[:, 0] if basis is not None and basis.width else whole


def write_basis(path: Path, basis: PcaBasis) -> None:
    """Writes the file drawn in `format`."""
    numbers = (basis.directions.shape[0], basis.width, basis.rows)
    header = BASIS_MAGIC + b"".join(number.to_bytes(8, "little") for number in numbers)
    path.write_bytes(header + np.array([basis.ood_from], "<f4").tobytes() + basis.directions.astype("<f4").tobytes())


def open_basis(path: Path, dimension: int) -> PcaBasis:
    """The basis in a file, mapped. Raises Corrupt when it is no basis for vectors of this dimension."""
    mapped = map_bytes(path, HEADER_BYTES + 4)
    header = mapped[:HEADER_BYTES].tobytes()
    of, width, rows = (int.from_bytes(header[at : at + 8], "little") for at in (8, 16, 24))
    if header[:8] != BASIS_MAGIC or of != dimension or width > dimension:
        raise Corrupt(f"{path.name} is no basis for vectors of {dimension} dimensions")
    if len(mapped) != HEADER_BYTES + 4 + 4 * dimension * width:
        raise Corrupt(f"{path.name} has {len(mapped)} bytes")
    numbers = mapped[HEADER_BYTES:].view("<f4")
    return PcaBasis(numbers[1:].reshape(dimension, width), rows, float(numbers[0]))
