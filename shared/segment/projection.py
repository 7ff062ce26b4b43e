"""Guides of fewer dimensions: most of what a graph compares is in a few directions of its vectors.

Embeddings fill their space unevenly. Seen along the directions in which they vary most, rows near each other stay near
each other at half of the dimensions or fewer, and a search, which reads some thousand vectors at random, takes that
much less time; so does adding a row. The order is then about right, not exact: a search finds a few rows more than are
wanted, and the whole vectors decide among them. (A linear projection for the graph, whole vectors for the last step:
Tepper et al., "LeanVec: Searching vectors faster by making them fit", TMLR 2024.)

A *basis* has one such direction in each column: the eigenvectors of the second moments of a sample, those of the
greatest eigenvalues first, float32 [dimension, directions]. Inner products and distances of vectors multiplied by it
are those of their shadows in these directions.

Whether that is good enough is measured, not assumed: of a sample of rows, how many of the ten nearest to some of them
are among the twenty nearest by their shadows. A search looks at more than twice as many (`reach`), because the queries
of users lie further from the rows than these from each other, and what is measured hardly depends on the number of rows
(0.998 at 192 of 384 dimensions for 3,000 to 60,000 rows of real text). Vectors without such directions keep all
dimensions. A graph that is extended keeps its basis as long as that serves the rows that are added, too.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt

from shared.errors import Corrupt
from shared.model import Space
from shared.segment.format import BASIS_MAGIC, HEADER_BYTES
from shared.segment.guides import Vectors, guides
from shared.segment.mapping import map_bytes

Basis = npt.NDArray[np.float32]

DIMENSION_MIN: Final = 128
"""Shorter vectors are compared in no time."""

DIMENSION_MAX: Final = 3072
"""The time to find directions grows with the third power; here it is some 10 s."""

ROWS_PER_DIMENSION_MIN: Final = 8
"""Fewer rows than so many times the dimension say too little about its directions."""

SHARES: Final = (0.25, 0.375, 0.5, 0.625, 0.75)
"""Of the dimensions: what is tried, in this order."""

FOUND_MIN: Final = 0.995
"""The part of the nearest rows that a new basis has to find."""

KEPT_FOUND_MIN: Final = 0.98
"""The same for one that is kept: building anew costs more than a few rows more in the beam."""

NEIGHBOURS: Final = 10
TESTED: Final = 2 * NEIGHBOURS
PROBES: Final = 128

_SAMPLE_ROWS: Final = 8192
_LANES: Final = 16
"""hnswlib compares so many numbers at a time."""


def reach(wanted: int) -> int:
    """How many rows nearest by their shadows are looked at for the `wanted` nearest."""
    return 20 + wanted + wanted // 2


def enough_rows(rows: int, dimension: int) -> bool:
    """Whether a basis may be looked for."""
    return DIMENSION_MIN <= dimension <= DIMENSION_MAX and rows >= ROWS_PER_DIMENSION_MIN * dimension


def find_basis(space: Space, vectors: Vectors) -> Basis | None:
    """The smallest good one for the guides of these vectors [n, d]; None when there is none."""
    sample = guides(space, vectors[_spread(0, len(vectors), _SAMPLE_ROWS)])
    directions = _directions(sample)
    probes = _spread(0, len(sample), PROBES)
    for share in SHARES:
        width = round(share * vectors.shape[1] / _LANES) * _LANES
        basis = np.ascontiguousarray(directions[:, :width])
        if found(space, sample, probes, basis) >= FOUND_MIN:
            return basis
    return None


def still_good(space: Space, vectors: Vectors, begin: int, basis: Basis) -> bool:
    """Whether a basis that was found for the first `begin` vectors finds the neighbours of the others as well."""
    added = _spread(begin, len(vectors), PROBES)
    rows = np.union1d(_spread(0, len(vectors), _SAMPLE_ROWS), added)
    return found(space, guides(space, vectors[rows]), np.searchsorted(rows, added), basis) >= KEPT_FOUND_MIN


def found(space: Space, sample: Vectors, probes: npt.NDArray[np.int64], basis: Basis) -> float:
    """Which part of the NEIGHBOURS nearest of each probe (a row of the sample of guides) are among the TESTED nearest
    by their shadows.
    """
    apart = _apart(space, sample, sample[probes])
    by_shadow = _apart(space, sample @ basis, sample[probes] @ basis)
    furthest = np.partition(apart, NEIGHBOURS, axis=0)[NEIGHBOURS]  # each row finds itself, too
    near = np.argpartition(by_shadow, TESTED, axis=0)[: TESTED + 1]
    hits = np.count_nonzero(np.take_along_axis(apart, near, axis=0) <= furthest, axis=0)
    return float((np.minimum(hits, NEIGHBOURS + 1) - 1).mean()) / NEIGHBOURS


def _directions(sample: Vectors) -> Basis:
    scale = float(np.abs(sample).max(initial=0.0))
    if scale > 0:
        sample = sample / np.float32(scale)  # no square of it overflows
    _, vectors = np.linalg.eigh((sample.T @ sample).astype(np.float64))
    directions: Basis = vectors[:, ::-1].astype(np.float32)
    return directions


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
    """The shadows of these guides; they themselves without a basis."""
    return whole if basis is None else whole @ basis


def write_basis(path: Path, basis: Basis) -> None:
    dimension, width = basis.shape
    header = BASIS_MAGIC + dimension.to_bytes(8, "little") + width.to_bytes(8, "little") + bytes(8)
    path.write_bytes(header + basis.astype("<f4").tobytes())


def open_basis(path: Path, dimension: int) -> Basis:
    """Raises Corrupt."""
    mapped = map_bytes(path, HEADER_BYTES)
    header = mapped[:HEADER_BYTES].tobytes()
    width = int.from_bytes(header[16:24], "little")
    if header[:8] != BASIS_MAGIC or int.from_bytes(header[8:16], "little") != dimension or not 0 < width <= dimension:
        raise Corrupt(f"{path.name} is no basis for vectors of {dimension} dimensions")
    if len(mapped) != HEADER_BYTES + 4 * dimension * width:
        raise Corrupt(f"{path.name} has {len(mapped)} bytes")
    basis: Basis = mapped[HEADER_BYTES:].view("<f4").reshape(dimension, width)
    return basis
