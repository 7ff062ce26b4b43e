"""The neighbour graph of a segment: hnswlib, built once, never changed while it is searched.

It holds vectors made for it (`shared.segment.graph_vectors`), and of these only their projections on a PCA basis where
that is enough to find what is near (`shared.segment.projection`).
"""

from __future__ import annotations

import errno
import os
import struct
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final, NamedTuple

import hnswlib
import numpy as np

from shared.errors import Corrupt
from shared.limits import GRAPH_EF_MAX, GRAPH_NEIGHBORS_MAX, GRAPH_NEIGHBORS_MIN
from shared.process import work
from shared.process.huge_pages import in_huge_pages
from shared.segment.format import BASIS, SegmentInfo
from shared.segment.graph_vectors import graph_vectors
from shared.segment.projection import (
    PcaBasis,
    enough_rows,
    find_basis,
    open_basis,
    out_of_distribution,
    project,
    project_each,
    still_serves,
    write_basis,
)
from shared.vectors.arrays import Mask, RowNumbers, Vectors
from shared.vectors.space import Space

_CHUNK_ROWS: Final = 8192
_SEED: Final = 100

_CHECKED_BEAM: Final = 16 * 1024
"""Rows of beams that a thread searches between two looks at whether the work is still wanted: some 40 ms."""


@dataclass(frozen=True, slots=True)
class GraphParams:
    """Parameters of building a graph: hnswlib's ef_construction and M, and the number of threads that add rows. With
    more than one thread the links depend on timing; recall does not.
    """

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


class _Unfinished(NamedTuple):
    """A graph that rows are added to. `basis` is None while none was looked for."""

    index: hnswlib.Index
    basis: PcaBasis | None


def build_graph(
    path: Path,
    vectors: Vectors,
    params: GraphParams,
    prior: Path | None = None,
    check: Callable[[], None] | None = None,
) -> int:
    """Writes the graph of `vectors` [n, d], and beside it what is known of a basis; returns how many rows were added to
    a graph. With `prior`, the graph of the first rows, that one is loaded and only the others are added, unless its
    basis does not serve them. `check` is called every few seconds; what it raises ends the work. Raises Corrupt when
    `prior` cannot be read.
    """
    growing = _new(vectors, params) if prior is None else _continued(prior, vectors, params)
    begin = growing.index.get_current_count()
    for at in range(begin, len(vectors), _CHUNK_ROWS):
        if check is not None:
            check()
        _add(growing, params.space, vectors[at : at + _CHUNK_ROWS], params.threads)
    growing.index.save_index(str(path))
    _check_saved(growing.index, path)
    if growing.basis is not None:
        write_basis(path.with_name(BASIS), growing.basis)
    return int(len(vectors) - begin)


def _check_saved(index: hnswlib.Index, path: Path) -> None:
    """Raises OSError when the file is not all of the index: the library does not notice a full disk."""
    if path.stat().st_size != index.index_file_size():
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))


def _new(vectors: Vectors, params: GraphParams) -> _Unfinished:
    basis = find_basis(params.space, vectors) if enough_rows(*vectors.shape) else None
    return _empty(params, vectors.shape[1], len(vectors), basis)


def _empty(params: GraphParams, dimension: int, rows_max: int, basis: PcaBasis | None) -> _Unfinished:
    index = _index(params.space, _width(dimension, basis))
    index.init_index(
        max_elements=rows_max,
        M=params.max_neighbors,
        ef_construction=params.ef_construction,
        random_seed=_SEED,
    )
    return _Unfinished(index, basis)


def _width(dimension: int, basis: PcaBasis | None) -> int:
    """The number of dimensions of the graph's vectors."""
    return basis.width if basis is not None and basis.width else dimension


def _continued(prior: Path, vectors: Vectors, params: GraphParams) -> _Unfinished:
    """The graph `prior` of the first vectors, with room for the others; or an empty graph, when its basis does not
    serve the others, or when there is a basis now.

    A basis is looked for once the rows are twice as many as they were the last time, and one that fails before is given
    up until then: so whatever comes, a row is added again once or twice, and not with every batch that lies elsewhere
    than the one before.
    """
    rows, dimension = vectors.shape
    file = prior.with_name(BASIS)
    basis = open_basis(file, dimension) if file.exists() else None
    growing = _Unfinished(_loaded(prior, params.space, _width(dimension, basis), rows), basis)
    begin = growing.index.get_current_count()
    if begin > rows:
        raise ValueError(f"the prior graph has {begin} rows, the segment {rows}")
    if basis is not None and basis.width:
        if begin == rows or still_serves(params.space, vectors, begin, basis):
            return growing
        again = find_basis(params.space, vectors) if rows >= 2 * basis.rows else PcaBasis.none(rows, dimension)
        return _empty(params, dimension, rows, again)
    looked = begin if basis is None and enough_rows(begin, dimension) else 0 if basis is None else basis.rows
    if not enough_rows(rows, dimension) or rows < 2 * looked:
        return growing
    again = find_basis(params.space, vectors)
    return _empty(params, dimension, rows, again) if again.width else growing._replace(basis=again)


class Graph:
    """A graph to search. Safe for any number of searching threads: nothing in it changes.

    hnswlib's beam is max(ef, k): for a wider one a search asks for more rows, instead of changing ef under others.
    """

    def __init__(self, index: hnswlib.Index, basis: PcaBasis | None, space: Space, ef_search: int) -> None:
        """`index` belongs to the graph from here on."""
        self.rows: int = index.get_current_count()
        self._space = space
        self._index = index
        self._basis = basis
        self._ef_search = ef_search
        index.set_ef(max(1, min(ef_search, self.rows)))

    @classmethod
    def open(cls, path: Path, info: SegmentInfo, ef_search: int) -> Graph:
        """Loads the graph of the segment that `info` describes. Raises Corrupt when the file holds another one."""
        basis = open_basis(path.with_name(BASIS), info.dimension) if info.has(BASIS) else None
        with in_huge_pages():
            index = _loaded(path, info.space, _width(info.dimension, basis), info.rows)
        if index.get_current_count() != info.rows:
            raise Corrupt(f"{path.name} has {index.get_current_count()} rows, not {info.rows}")
        return cls(index, basis, info.space, ef_search)

    @classmethod
    def of(cls, vectors: Vectors, params: GraphParams, rows_max: int) -> Graph:
        """Builds a graph in memory over `vectors` [n, d] in all their dimensions. It can be extended to `rows_max`
        rows: room that is not used takes no memory.
        """
        growing = _empty(params, vectors.shape[1], rows_max, basis=None)
        _add(growing, params.space, vectors, params.threads)
        return cls(growing.index, None, params.space, ef_search=1)

    def extended(self, vectors: Vectors, threads: int) -> Graph:
        """A graph with the rows of this one and `vectors` [n, d] behind them: a copy, because hnswlib cannot be
        searched while it grows. Copying a row costs about a hundredth of adding one.
        """
        [state] = self._index.__getstate__()
        index = hnswlib.Index(state)
        del state
        _add(_Unfinished(index, self._basis), self._space, vectors, threads)
        return Graph(index, self._basis, self._space, self._ef_search)

    @property
    def dimension_share(self) -> float:
        """The share of the vectors' dimensions that the graph compares, 1 when it holds no projections."""
        return 1.0 if self._basis is None or not self._basis.width else self._basis.width / len(self._basis.directions)

    def out_of_distribution(self, queries: Vectors) -> Mask:
        """About which of `queries` [q, d], bool [q], projections say little (`shared.segment.projection`)."""
        if self._basis is None or not self._basis.width:
            return np.zeros(len(queries), np.bool_)
        return out_of_distribution(graph_vectors(self._space, queries), self._basis)

    @property
    def bytes(self) -> int:
        """About its bytes in memory: vectors, twice as many links at the bottom as above, counts, labels."""
        per_row: int = 4 * self._index.dim + 8 * self._index.M + 16
        return self.rows * per_row

    def search(self, queries: Vectors, k: int, threads: int = 1) -> list[RowNumbers | None]:
        """min(k, rows) rows for each of `queries` [q, d], nearest first as the graph compares them. Which rows a query
        gets does not depend on the other queries. None instead of rows when the graph does not reach that many from
        its entry (only hnswlib's refusal tells): then the caller has to scan.
        """
        step = max(1, _CHECKED_BEAM // max(1, k, self._ef_search)) * max(1, threads)
        found: list[RowNumbers | None] = []
        for at in range(0, len(queries), step):
            work.check()
            found += self._search(queries[at : at + step], min(k, self.rows), threads)
        return found

    def _search(self, queries: Vectors, k: int, threads: int) -> list[RowNumbers | None]:
        compared = project_each(graph_vectors(self._space, queries), self._basis)
        try:
            labels, _ = self._index.knn_query(compared, k=k, num_threads=max(1, threads))
        except RuntimeError:
            if len(queries) == 1:
                return [None]
            return [rows for query in queries for rows in self.search(query[None, :], k)]
        return list(labels.astype(np.int64))


def _loaded(path: Path, space: Space, width: int, rows_max: int) -> hnswlib.Index:
    """The graph in a file, with room for `rows_max` rows. Raises Corrupt when it is of another width or unreadable."""
    stored = _stored_width(path)
    if stored != width:  # hnswlib would not notice, and read beyond its memory
        raise Corrupt(f"{path.name} has vectors of {stored} dimensions, not {width}")
    index = _index(space, width)
    try:
        index.load_index(str(path), max_elements=rows_max)
    except RuntimeError as error:
        raise Corrupt(f"{path.name}: {error}") from error
    return index


def _stored_width(path: Path) -> int:
    """The dimension of the vectors in hnswlib's file, from where its header says that labels follow data in a row."""
    with path.open("rb") as file:
        _, _, _, _, label, data = struct.unpack("<6Q", file.read(48).ljust(48, b"\0"))
    return int(label - data) // 4


def _add(growing: _Unfinished, space: Space, vectors: Vectors, threads: int) -> None:
    begin = growing.index.get_current_count()
    labels = np.arange(begin, begin + len(vectors))
    growing.index.add_items(project(graph_vectors(space, vectors), growing.basis), labels, num_threads=threads)
