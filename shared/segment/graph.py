"""The neighbour graph of a segment: hnswlib, built once, never changed while it is searched.

What hnswlib must never meet, because it takes it silently and breaks its order: NaN, and products that overflow
float32. So the graph holds *guides*, not the vectors: for cosine each vector scaled to length 1 in float64 (a zero
vector stays zero: distance 1, as the contract says) and searched by inner product; for the others the vector
itself, scaled down to `_NORM_MAX` when longer. Guides decide only which rows are looked at.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import hnswlib
import numpy as np
import numpy.typing as npt

from shared.errors import Corrupt
from shared.huge_pages import in_huge_pages
from shared.limits import GRAPH_EF_MAX, GRAPH_NEIGHBORS_MAX, GRAPH_NEIGHBORS_MIN
from shared.model import Space

Vectors = npt.NDArray[np.float32]

_NORM_MAX: Final = 1e18
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


def guides(space: Space, vectors: Vectors) -> Vectors:
    """What the graph holds for these vectors; float32 [n, d], finite, no product of two of them overflows."""
    if space is not Space.COSINE and float(np.abs(vectors).max(initial=0.0)) * vectors.shape[1] <= _NORM_MAX:
        return vectors  # all of them are shorter
    norms = np.sqrt(np.einsum("ij,ij->i", vectors, vectors, dtype=np.float64))
    if space is Space.COSINE:
        scale = np.divide(1.0, norms, out=np.zeros_like(norms), where=norms > 0)
    else:
        scale = np.minimum(1.0, _NORM_MAX / np.maximum(norms, _NORM_MAX))
        if (scale == 1.0).all():
            return vectors
    scaled: Vectors = (vectors * scale[:, None]).astype(np.float32)
    return scaled


def _index(space: Space, dimension: int) -> hnswlib.Index:
    return hnswlib.Index(space="l2" if space is Space.L2 else "ip", dim=dimension)


def _chunks(vectors: Vectors, begin: int) -> Iterator[Vectors]:
    for at in range(begin, len(vectors), _CHUNK_ROWS):
        yield vectors[at : at + _CHUNK_ROWS]


def build_graph(
    path: Path,
    vectors: Vectors,
    params: GraphParams,
    base: Path | None = None,
    check: Callable[[], None] | None = None,
) -> None:
    """Writes the graph of `vectors`. With `base`, the graph of their first m rows is loaded and the others are
    added. `check` is called every few seconds; what it raises ends the work.
    """
    index = _index(params.space, vectors.shape[1])
    begin = 0
    if base is None:
        index.init_index(
            max_elements=len(vectors),
            M=params.max_neighbors,
            ef_construction=params.ef_construction,
            random_seed=_SEED,
        )
    else:
        index.load_index(str(base), max_elements=len(vectors))
        begin = index.get_current_count()
        if begin > len(vectors):
            raise ValueError(f"the base graph has {begin} rows, the segment {len(vectors)}")
    for chunk in _chunks(vectors, begin):
        if check is not None:
            check()
        _add(index, params.space, chunk, params.threads)
    index.save_index(str(path))


class Graph:
    """A graph to search. Safe for any number of searching threads: nothing in it changes.

    hnswlib's beam is max(ef, k), so whoever wants a wider one asks for more rows instead of changing ef under others.
    """

    def __init__(self, index: hnswlib.Index, space: Space, ef_search: int) -> None:
        """`index` belongs to the graph from here on."""
        self.rows: int = index.get_current_count()
        self._space = space
        self._index = index
        self._ef_search = ef_search
        index.set_ef(max(1, min(ef_search, self.rows)))

    @classmethod
    def open(cls, path: Path, space: Space, dimension: int, rows: int, ef_search: int) -> Graph:
        """One that was built into a file. Raises Corrupt."""
        index = _index(space, dimension)
        try:
            with in_huge_pages():
                index.load_index(str(path), max_elements=rows)
        except RuntimeError as error:
            raise Corrupt(f"{path.name}: {error}") from error
        if index.get_current_count() != rows:
            raise Corrupt(f"{path.name} has {index.get_current_count()} rows, not {rows}")
        return cls(index, space, ef_search)

    @classmethod
    def of(cls, vectors: Vectors, params: GraphParams, rows_max: int) -> Graph:
        """One in memory that can be extended to `rows_max` rows: room that is not used takes none."""
        index = _index(params.space, vectors.shape[1])
        index.init_index(
            max_elements=rows_max, M=params.max_neighbors, ef_construction=params.ef_construction, random_seed=_SEED
        )
        _add(index, params.space, vectors, params.threads)
        return cls(index, params.space, ef_search=1)

    def extended(self, vectors: Vectors, threads: int) -> Graph:
        """Another one with more rows behind those of this one: a copy, because hnswlib cannot be searched while it
        grows. Copying a row costs about a hundredth of adding one.
        """
        [state] = self._index.__getstate__()
        index = hnswlib.Index(state)
        del state
        _add(index, self._space, vectors, threads)
        return Graph(index, self._space, self._ef_search)

    @property
    def bytes(self) -> int:
        """About what it takes in memory: vectors, twice as many links at the bottom as above, counts and labels."""
        per_row: int = 4 * self._index.dim + 8 * self._index.M + 16
        return self.rows * per_row

    def search(self, queries: Vectors, k: int, threads: int = 1) -> npt.NDArray[np.int64] | None:
        """Rows int64 [q, min(k, rows)], nearest first by the guides; None when the graph does not reach that many from
        its entry (only hnswlib's refusal tells), and the caller has to scan.
        """
        try:
            labels, _ = self._index.knn_query(
                guides(self._space, queries), k=min(k, self.rows), num_threads=max(1, threads)
            )
        except RuntimeError:
            return None
        rows: npt.NDArray[np.int64] = labels.astype(np.int64)
        return rows


def _add(index: hnswlib.Index, space: Space, vectors: Vectors, threads: int) -> None:
    begin = index.get_current_count()
    labels = np.arange(begin, begin + len(vectors))
    index.add_items(guides(space, vectors), labels, num_threads=threads)
