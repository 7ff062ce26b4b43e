"""The neighbour graph of a segment: hnswlib, built once, never changed while it is searched.

It holds guides, not vectors (`shared.segment.guides`), and of these only their shadows in a few directions where that
is enough to find what is near (`shared.segment.projection`).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final, NamedTuple

import hnswlib
import numpy as np
import numpy.typing as npt

from shared.errors import Corrupt
from shared.huge_pages import in_huge_pages
from shared.limits import GRAPH_EF_MAX, GRAPH_NEIGHBORS_MAX, GRAPH_NEIGHBORS_MIN
from shared.model import Space
from shared.segment.format import BASIS, SegmentInfo
from shared.segment.guides import Vectors, guides
from shared.segment.projection import (
    Basis,
    enough_rows,
    find_basis,
    open_basis,
    projected,
    still_good,
    write_basis,
)

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


class BuiltGraph(NamedTuple):
    """What came of building one: how many rows were added, and how many dimensions its guides have when there is a
    basis.
    """

    inserted: int
    guide_dimension: int | None


class _Growing(NamedTuple):
    index: hnswlib.Index
    basis: Basis | None


def build_graph(
    path: Path,
    vectors: Vectors,
    params: GraphParams,
    base: Path | None = None,
    check: Callable[[], None] | None = None,
) -> BuiltGraph:
    """Writes the graph of `vectors`, and the basis of its guides beside it if it has one. With `base`, the graph of
    their first m rows is loaded and the others are added, unless its basis does not serve them. `check` is called every
    few seconds; what it raises ends the work.
    """
    growing = _empty(vectors, params) if base is None else _continued(base, vectors, params)
    begin = growing.index.get_current_count()
    for at in range(begin, len(vectors), _CHUNK_ROWS):
        if check is not None:
            check()
        _add(growing, params.space, vectors[at : at + _CHUNK_ROWS], params.threads)
    growing.index.save_index(str(path))
    if growing.basis is not None:
        write_basis(path.with_name(BASIS), growing.basis)
    return BuiltGraph(len(vectors) - begin, None if growing.basis is None else growing.basis.shape[1])


def _empty(vectors: Vectors, params: GraphParams, rows_max: int = 0, *, may_project: bool = True) -> _Growing:
    """A graph for these vectors, without any."""
    rows, dimension = vectors.shape
    basis = find_basis(params.space, vectors) if may_project and enough_rows(rows, dimension) else None
    index = _index(params.space, dimension if basis is None else basis.shape[1])
    index.init_index(
        max_elements=max(rows, rows_max),
        M=params.max_neighbors,
        ef_construction=params.ef_construction,
        random_seed=_SEED,
    )
    return _Growing(index, basis)


def _continued(base: Path, vectors: Vectors, params: GraphParams) -> _Growing:
    """The graph of the first vectors, with room for the others; or an empty one, when its basis does not serve the
    others, or it was made of too few rows to have one and now there are enough.

    A basis that fails is followed by another one only when the rows have doubled since, else by none, ever: so whatever
    comes, a row is added again once or twice, and not with every batch that lies elsewhere than the one before.
    """
    rows, dimension = vectors.shape
    file = base.with_name(BASIS)
    basis = open_basis(file, dimension) if file.exists() else None
    index = _index(params.space, dimension if basis is None else basis.shape[1])
    index.load_index(str(base), max_elements=rows)
    begin = index.get_current_count()
    if begin > rows:
        raise ValueError(f"the base graph has {begin} rows, the segment {rows}")
    if basis is None:
        if enough_rows(begin, dimension) or not enough_rows(rows, dimension):
            return _Growing(index, None)
        return _empty(vectors, params)
    if begin == rows or still_good(params.space, vectors, begin, basis):
        return _Growing(index, basis)
    return _empty(vectors, params, may_project=rows >= 2 * begin)


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
        basis = None
        if info.guide_dimension is not None:
            basis = open_basis(path.with_name(BASIS), info.dimension)
            if basis.shape[1] != info.guide_dimension:
                raise Corrupt(f"segment {info.id}: {BASIS} has {basis.shape[1]} directions, not {info.guide_dimension}")
        index = _index(info.space, info.dimension if basis is None else basis.shape[1])
        try:
            with in_huge_pages():
                index.load_index(str(path), max_elements=info.rows)
        except RuntimeError as error:
            raise Corrupt(f"{path.name}: {error}") from error
        if index.get_current_count() != info.rows:
            raise Corrupt(f"{path.name} has {index.get_current_count()} rows, not {info.rows}")
        return cls(index, basis, info.space, ef_search)

    @classmethod
    def of(cls, vectors: Vectors, params: GraphParams, rows_max: int) -> Graph:
        """One in memory over whole guides that can be extended to `rows_max` rows: room that is not used takes none."""
        growing = _empty(vectors, params, rows_max, may_project=False)
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
    def bytes(self) -> int:
        """About what it takes in memory: guides, twice as many links at the bottom as above, counts and labels."""
        per_row: int = 4 * self._index.dim + 8 * self._index.M + 16
        return self.rows * per_row

    def search(self, queries: Vectors, k: int, threads: int = 1) -> npt.NDArray[np.int64] | None:
        """Rows int64 [q, min(k, rows)], nearest first by their guides; None when the graph does not reach that many
        from its entry (only hnswlib's refusal tells), and the caller has to scan.
        """
        guided = projected(guides(self._space, queries), self._basis)
        try:
            labels, _ = self._index.knn_query(guided, k=min(k, self.rows), num_threads=max(1, threads))
        except RuntimeError:
            return None
        rows: npt.NDArray[np.int64] = labels.astype(np.int64)
        return rows


def _add(growing: _Growing, space: Space, vectors: Vectors, threads: int) -> None:
    begin = growing.index.get_current_count()
    labels = np.arange(begin, begin + len(vectors))
    growing.index.add_items(projected(guides(space, vectors), growing.basis), labels, num_threads=threads)
