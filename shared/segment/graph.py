"""The neighbour graph of a segment: hnswlib, built once, never changed while it is searched.

It holds guides, not vectors (`shared.segment.graph_vectors`), and of these only their shadows in a few directions where
that is enough to find what is near (`shared.segment.projection`).
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final, NamedTuple

import hnswlib
import numpy as np

from shared.errors import Corrupt
from shared.limits import GRAPH_EF_MAX, GRAPH_NEIGHBORS_MAX, GRAPH_NEIGHBORS_MIN
from shared.process.huge_pages import in_huge_pages
from shared.segment.format import BASIS, SegmentInfo
from shared.segment.graph_vectors import Vectors, guides
from shared.segment.projection import (
    Basis,
    enough_rows,
    find_basis,
    open_basis,
    projected,
    projected_each,
    still_good,
    strays,
    write_basis,
)
from shared.vectors.arrays import Mask, RowNumbers
from shared.vectors.space import Space

_CHUNK_ROWS: Final = 8192
_SEED: Final = 100


@dataclass(frozen=True, slots=True)
class GraphParams:
    """How a graph is built. `threads` adds rows at once; more make the graph depend on timing, not its recall."""

    space: Space
    ef_construction: int
    max_neighbors: int
    threads: int

    def __post_init__(self) -> None:
        if not GRAPH_NEIGHBORS_MIN <= self.max_neighbors <= GRAPH_NEIGHBORS_MAX:
            raise ValueError(f"{self.max_neighbors} neighbours: hnswlib divides by log(M), and every link takes room")
        if not 1 <= self.ef_construction <= GRAPH_EF_MAX:
            raise ValueError(f"ef_construction {self.ef_construction} is out of bounds")


def _index(space: Space, dimension: int) -> hnswlib.Index:
    return hnswlib.Index(space="l2" if space is Space.L2 else "ip", dim=dimension)


class _Growing(NamedTuple):
    """`basis`: None while none was looked for."""

    index: hnswlib.Index
    basis: Basis | None


def build_graph(
    path: Path,
    vectors: Vectors,
    params: GraphParams,
    base: Path | None = None,
    check: Callable[[], None] | None = None,
) -> int:
    """Writes the graph of `vectors`, and beside it what is known of a basis. With `base`, the graph of their first m
    rows is loaded and the others are added, unless its basis does not serve them. How many rows were added. `check` is
    called every few seconds; what it raises ends the work.
    """
    growing = _new(vectors, params) if base is None else _continued(base, vectors, params)
    begin = growing.index.get_current_count()
    for at in range(begin, len(vectors), _CHUNK_ROWS):
        if check is not None:
            check()
        _add(growing, params.space, vectors[at : at + _CHUNK_ROWS], params.threads)
    growing.index.save_index(str(path))
    if growing.basis is not None:
        write_basis(path.with_name(BASIS), growing.basis)
    return int(len(vectors) - begin)


def _new(vectors: Vectors, params: GraphParams) -> _Growing:
    basis = find_basis(params.space, vectors) if enough_rows(*vectors.shape) else None
    return _empty(params, vectors.shape[1], len(vectors), basis)


def _empty(params: GraphParams, dimension: int, rows_max: int, basis: Basis | None) -> _Growing:
    index = _index(params.space, _width(dimension, basis))
    index.init_index(
        max_elements=rows_max,
        M=params.max_neighbors,
        ef_construction=params.ef_construction,
        random_seed=_SEED,
    )
    return _Growing(index, basis)


def _width(dimension: int, basis: Basis | None) -> int:
    """How many dimensions guides have."""
    return basis.width if basis is not None and basis.width else dimension


def _continued(base: Path, vectors: Vectors, params: GraphParams) -> _Growing:
    """The graph of the first vectors, with room for the others; or an empty one, when its basis does not serve the
    others, or there is one now.

    A basis is looked for once the rows are twice as many as they were the last time, and one that fails before is given
    up until then: so whatever comes, a row is added again once or twice, and not with every batch that lies elsewhere
    than the one before.
    """
    rows, dimension = vectors.shape
    file = base.with_name(BASIS)
    basis = open_basis(file, dimension) if file.exists() else None
    growing = _Growing(_loaded(base, params.space, _width(dimension, basis), rows), basis)
    begin = growing.index.get_current_count()
    if begin > rows:
        raise ValueError(f"the base graph has {begin} rows, the segment {rows}")
    if basis is not None and basis.width:
        if begin == rows or still_good(params.space, vectors, begin, basis):
            return growing
        again = find_basis(params.space, vectors) if rows >= 2 * basis.rows else Basis.none(rows, dimension)
        return _empty(params, dimension, rows, again)
    looked = begin if basis is None and enough_rows(begin, dimension) else 0 if basis is None else basis.rows
    if not enough_rows(rows, dimension) or rows < 2 * looked:
        return growing
    again = find_basis(params.space, vectors)
    return _empty(params, dimension, rows, again) if again.width else growing._replace(basis=again)


class Graph:
    """A graph to search. Safe for any number of searching threads: nothing in it changes.

    hnswlib's beam is max(ef, k), so whoever wants a wider one asks for more rows instead of changing ef under others.
    """

    def __init__(self, index: hnswlib.Index, basis: Basis | None, space: Space, ef_search: int) -> None:
        """`index` belongs to the graph from here on."""
        self.rows: int = index.get_current_count()
        self._space = space
        self._index = index
        self._basis = basis
        self._ef_search = ef_search
        index.set_ef(max(1, min(ef_search, self.rows)))

    @classmethod
    def open(cls, path: Path, info: SegmentInfo, ef_search: int) -> Graph:
        """One that was built into a file, for a segment of which `info` tells. Raises Corrupt."""
        basis = open_basis(path.with_name(BASIS), info.dimension) if info.has(BASIS) else None
        with in_huge_pages():
            index = _loaded(path, info.space, _width(info.dimension, basis), info.rows)
        if index.get_current_count() != info.rows:
            raise Corrupt(f"{path.name} has {index.get_current_count()} rows, not {info.rows}")
        return cls(index, basis, info.space, ef_search)

    @classmethod
    def of(cls, vectors: Vectors, params: GraphParams, rows_max: int) -> Graph:
        """One in memory over whole guides that can be extended to `rows_max` rows: room that is not used takes none."""
        growing = _empty(params, vectors.shape[1], rows_max, basis=None)
        _add(growing, params.space, vectors, params.threads)
        return cls(growing.index, None, params.space, ef_search=1)

    def extended(self, vectors: Vectors, threads: int) -> Graph:
        """Another one with more rows behind those of this one: a copy, because hnswlib cannot be searched while it
        grows. Copying a row costs about a hundredth of adding one.
        """
        [state] = self._index.__getstate__()
        index = hnswlib.Index(state)
        del state
        _add(_Growing(index, self._basis), self._space, vectors, threads)
        return Graph(index, self._basis, self._space, self._ef_search)

    @property
    def guide_share(self) -> float:
        """How many of the dimensions its guides have."""
        return 1.0 if self._basis is None or not self._basis.width else self._basis.width / len(self._basis.directions)

    def strays(self, queries: Vectors) -> Mask:
        """About which queries, bool [q], guides of fewer dimensions say little (`shared.segment.projection`)."""
        if self._basis is None or not self._basis.width:
            return np.zeros(len(queries), np.bool_)
        return strays(guides(self._space, queries), self._basis)

    @property
    def bytes(self) -> int:
        """About what it takes in memory: guides, twice as many links at the bottom as above, counts and labels."""
        per_row: int = 4 * self._index.dim + 8 * self._index.M + 16
        return self.rows * per_row

    def search(self, queries: Vectors, k: int, threads: int = 1) -> list[RowNumbers | None]:
        """min(k, rows) rows for each of `queries` [q, d], nearest first by their guides, whatever others it comes with;
        None when the graph does not reach that many from its entry (only hnswlib's refusal tells), and the caller has
        to scan.
        """
        guided = projected_each(guides(self._space, queries), self._basis)
        try:
            labels, _ = self._index.knn_query(guided, k=min(k, self.rows), num_threads=max(1, threads))
        except RuntimeError:
            if len(queries) == 1:
                return [None]
            return [rows for query in queries for rows in self.search(query[None, :], k)]
        return list(labels.astype(np.int64))


def _loaded(path: Path, space: Space, width: int, rows_max: int) -> hnswlib.Index:
    """The graph in a file, with room for so many rows. Raises Corrupt."""
    stored = _stored_width(path)
    if stored != width:  # hnswlib would not notice, and read beyond its memory
        raise Corrupt(f"{path.name} has guides of {stored} dimensions, not {width}")
    index = _index(space, width)
    try:
        index.load_index(str(path), max_elements=rows_max)
    except RuntimeError as error:
        raise Corrupt(f"{path.name}: {error}") from error
    return index


def _stored_width(path: Path) -> int:
    """How many numbers each guide has in hnswlib's file: what its header says of where in a row labels follow data."""
    with path.open("rb") as file:
        _, _, _, _, label, data = struct.unpack("<6Q", file.read(48).ljust(48, b"\0"))
    return int(label - data) // 4


def _add(growing: _Growing, space: Space, vectors: Vectors, threads: int) -> None:
    begin = growing.index.get_current_count()
    labels = np.arange(begin, begin + len(vectors))
    growing.index.add_items(projected(guides(space, vectors), growing.basis), labels, num_threads=threads)
