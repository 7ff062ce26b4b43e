"""An inverted index of sparse vectors: from index to the rows that have it, and the nearest rows by pruning.

There is one *posting list* per index: its rows, ascending, and their weights. A query reads the lists of its indices,
and a row's score is the sum of `q[i] * weight` over the lists that have it. Most of a sum comes from the few rare
indices of a query, most of the rows come from its common ones.

The search is MaxScore (Turtle and Flood, «Query evaluation: strategies and optimizations», 1995), list by list with
accumulators as in Strohman and Croft («Efficient document retrieval in main memory», 2007), because whole lists are
what numpy is quick at. Every list has a bound: the most that it can add to a sum.

1. Lists are added to the accumulators in the order of their bounds, the greatest first. The k-th greatest sum so far is
   a floor under the k-th greatest in the end.
2. Once the bounds of all lists that are left add up to less than the floor, no row that stands only in those can be
   among the k nearest. The rows seen so far are the candidates, less those that cannot reach the floor.
3. The remaining lists, which are the long ones, are not walked: the candidates are looked up in them by binary search.
   Each list raises the floor and leaves fewer candidates.
4. What is left, a few dozen rows, is summed anew in the one order that `shared.vectors.sparse` prescribes.

Nothing is approximate: floors and bounds count in the errors of rounding, ties in float32 included. Weights and queries
may be negative; a list's bound is then what its least weight can add. When few rows are allowed, all of them are
candidates from the beginning, and only step 3 and 4 remain.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any, Final, NamedTuple

import numpy as np
import orjson
import pyarrow as pa

from shared.process import work
from shared.vectors.arrays import Float64Array, Int64Array, Mask, RowNumbers32, SparseIndices, SparseWeights
from shared.vectors.distance import Nearest
from shared.vectors.sparse import TYPE, SparseArrays, distances_of, is_sparse, of_json

LOOKUP_COST: Final = 8
"""The cost of looking one row up in a list, in rows of a list that is walked."""

_CHUNK_ROWS: Final = 4096
_UNIT: Final = 2.0**-53
_LARGEST: Final = float(np.finfo(np.float64).max)
_NOTHING: Final = Nearest(np.empty(0, np.int64), np.empty(0, np.float32))


class _PostingList(NamedTuple):
    """The list of one index of a query. A row of it adds `least` to `most` to a sum: its weight times `factor`."""

    rows: RowNumbers32
    weights: SparseWeights
    factor: np.float64
    least: float
    most: float


class _Candidates(NamedTuple):
    """Rows [n], ascending, with their sums so far and whether any list so far has them."""

    rows: RowNumbers32
    sums: Float64Array
    hit: Mask

    def only(self, places: Mask) -> _Candidates:
        return _Candidates(self.rows[places], self.sums[places], self.hit[places])


@dataclass(frozen=True, slots=True)
class InvertedIndex:
    """The sparse vectors at one key of `count` rows.

    `indices` [u] ascends; the list of `indices[i]` is `[starts[i], starts[i + 1])` of `rows` (ascending in it) and
    `weights`, with the least and the greatest weight in `least[i]` and `most[i]`.
    """

    count: int
    indices: SparseIndices
    starts: Int64Array
    rows: RowNumbers32
    weights: SparseWeights
    least: SparseWeights
    most: SparseWeights

    def document_frequencies(self, indices: SparseIndices, within: Mask | None = None) -> Int64Array:
        """How many rows (of those `within`, bool [count]) have each of `indices` [n]: int64 [n]."""
        found = np.zeros(len(indices), np.int64)
        for place, number in zip(*self._places(indices), strict=True):
            work.check()
            rows = self.rows[self.starts[number] : self.starts[number + 1]]
            found[place] = len(rows) if within is None else np.count_nonzero(within[rows])
        return found

    def nearest(self, query: SparseArrays, k: int, within: Mask | None = None) -> Nearest:
        """The `k` nearest rows, nearest first, ties by row; only rows `within` (bool [count]) when it is given.

        Further rows whose distance equals that of the last one are returned, too: a caller that merges several indexes
        breaks ties by another order. Rows that share no index with the query are left out, so there may be fewer.
        """
        lists = self._lists(query)
        if k <= 0 or not lists:
            return _NOTHING
        search = _Search(self.count, lists, k)
        if within is not None:
            allowed = int(np.count_nonzero(within))
            if LOOKUP_COST * allowed * len(lists) < search.postings_count:
                return search.within(within)
        return search.run(within)

    def _places(self, indices: SparseIndices) -> tuple[list[int], list[int]]:
        """Which of `indices` some row has: where they stand in the argument, and where in `self.indices`."""
        numbers = np.searchsorted(self.indices, indices)
        numbers[numbers == len(self.indices)] = 0
        known = np.flatnonzero(self.indices[numbers] == indices) if len(self.indices) else numbers[:0]
        return known.tolist(), numbers[known].tolist()

    def _lists(self, query: SparseArrays) -> list[_PostingList]:
        """The posting lists of the query's indices, ascending by index."""
        found: list[_PostingList] = []
        for place, number in zip(*self._places(query.indices), strict=True):
            here = slice(self.starts[number], self.starts[number + 1])
            factor = np.float64(query.values[place])
            ends = sorted((float(factor * self.least[number]), float(factor * self.most[number])))
            found.append(_PostingList(self.rows[here], self.weights[here], factor, *ends))
        return found


class _Search:
    """The search for the k nearest rows of one query. `lists` ascend by index, as exact sums are made."""

    def __init__(self, count: int, lists: Sequence[_PostingList], k: int) -> None:
        self._count = count
        self._lists = lists
        self._by_bound = sorted(lists, key=lambda postings: postings.most, reverse=True)
        self._k = k
        self.postings_count = sum(len(postings.rows) for postings in lists)

        # What the lists from each place on can still add, at least and at most.
        self._least = _suffix_sums([min(0.0, postings.least) for postings in self._by_bound])
        self._most = _suffix_sums([max(0.0, postings.most) for postings in self._by_bound])
        magnitude = sum(max(abs(postings.least), abs(postings.most)) for postings in lists)
        self._slack = 2.0 * (len(lists) + 2) * _UNIT * magnitude
        """No two sums of the same numbers in different orders differ by as much."""
        self._floor = -np.inf
        """No row with a sum below this, in whatever order it was made, is among the k nearest. It only grows."""

    def run(self, within: Mask | None) -> Nearest:
        """The nearest rows, of those `within`, by all four steps."""
        sums = np.zeros(self._count) if within is None else np.where(within, 0.0, -np.inf)
        hit = np.zeros(self._count, np.bool_)
        done = 0
        for postings in self._by_bound:
            work.check()
            reached = sums[postings.rows]
            reached += postings.weights * postings.factor
            sums[postings.rows] = reached
            hit[postings.rows] = True
            done += 1
            self._raise_floor(reached, done)
            if self._most[done] < self._floor:
                break
        rows = np.flatnonzero(hit & self._may_reach(sums, done)).astype(np.int32)
        return self._refined(_Candidates(rows, sums[rows], np.ones(len(rows), np.bool_)), done)

    def within(self, mask: Mask) -> Nearest:
        """The nearest rows of the mask, by steps 3 and 4 with all of them as candidates."""
        rows = np.flatnonzero(mask).astype(np.int32)
        return self._refined(_Candidates(rows, np.zeros(len(rows)), np.zeros(len(rows), np.bool_)), 0)

    def _refined(self, candidates: _Candidates, done: int) -> Nearest:
        for postings in self._by_bound[done:]:
            work.check()
            rows, sums, hit = candidates
            added, found = _looked_up(postings, rows)
            candidates = _Candidates(rows, sums + added, hit | found)
            done += 1
            self._raise_floor(candidates.sums[candidates.hit], done)
            candidates = candidates.only(self._may_reach(candidates.sums, done))
        return self._decided(candidates.rows)

    def _raise_floor(self, sums: Float64Array, done: int) -> None:
        """Raises the floor, given sums of different rows that have an index of the query, with `done` lists added."""
        # Of a long list few are above the floor already, and only those can raise it.
        above = sums[sums > self._floor - self._least[done]]
        if len(above) < self._k:
            return
        kth = np.partition(above, len(above) - self._k)[-self._k] + self._least[done] - self._slack
        # A sum that rounds to the same distance as the k-th is a tie.
        worst = np.nextafter(distances_of(kth), np.float32(np.inf))
        self._floor = max(self._floor, 1.0 - float(worst) - self._slack)

    def _may_reach(self, sums: Float64Array, done: int) -> Mask:
        return sums >= max(self._floor - self._most[done], -_LARGEST)  # rows that are not allowed have -inf

    def _decided(self, rows: RowNumbers32) -> Nearest:
        """Sums the candidates anew in the prescribed order (step 4): the nearest rows."""
        sums, hit = np.zeros(len(rows)), np.zeros(len(rows), np.bool_)
        for postings in self._lists:
            work.check()
            added, found = _looked_up(postings, rows)
            sums += added
            hit |= found
        chosen, distances = rows[hit].astype(np.int64), distances_of(sums[hit])
        order = np.argsort(distances, kind="stable")  # rows ascend already
        if len(order) > self._k:
            last = distances[order[self._k - 1]]
            order = order[: int(np.searchsorted(distances[order], last, side="right"))]
        return Nearest(chosen[order], distances[order])


def _looked_up(postings: _PostingList, rows: RowNumbers32) -> tuple[Float64Array, Mask]:
    """The amounts that a list adds to the sums of `rows`, and which of them it has."""
    places = np.searchsorted(postings.rows, rows)
    places[places == len(postings.rows)] = 0
    found = postings.rows[places] == rows
    return np.where(found, postings.weights[places] * postings.factor, 0.0), found


def _suffix_sums(values: Sequence[float]) -> list[float]:
    """The sum of the values from each place on, and 0 behind the last."""
    return [*reversed(list(accumulate(reversed(values), initial=0.0)))]


# ---- building


def sparse_indexes(texts: Sequence[str | None] | pa.Array, keys: Collection[str]) -> dict[str, InvertedIndex]:
    """The index of each of `keys` at which some row has a sparse vector. `texts` is the metadata of each row: JSON
    text, None for none.
    """
    gathered: dict[str, _Gathered] = {key: _Gathered() for key in keys}
    for at in range(0, len(texts) if gathered else 0, _CHUNK_ROWS):
        work.check()
        chunk = texts[at : at + _CHUNK_ROWS]
        for row, text in enumerate(chunk.to_pylist() if isinstance(chunk, pa.Array) else chunk, start=at):
            if text is None or TYPE not in text:
                continue
            for key, value in orjson.loads(text).items():
                if key in gathered and is_sparse(value):
                    gathered[key].add(row, value)
    return {key: into.index(len(texts)) for key, into in gathered.items() if into.rows}


class _Gathered:
    """The sparse vectors at one key, gathered row by row."""

    def __init__(self) -> None:
        self.rows: list[int] = []
        self._vectors: list[SparseArrays] = []

    def add(self, row: int, value: Mapping[str, Any]) -> None:
        self.rows.append(row)
        self._vectors.append(of_json(value))

    def index(self, count: int) -> InvertedIndex:
        lengths = [len(vector.indices) for vector in self._vectors]
        rows = np.repeat(np.array(self.rows, np.int32), lengths)
        indices = np.concatenate([vector.indices for vector in self._vectors])
        weights = np.concatenate([vector.values for vector in self._vectors])
        order = np.argsort(indices, kind="stable")  # rows ascend within an index
        indices, starts = np.unique(indices[order], return_index=True)
        weights = weights[order]
        return InvertedIndex(
            count=count,
            indices=indices,
            starts=np.append(starts, len(rows)).astype("<i8"),
            rows=rows[order],
            weights=weights,
            least=np.minimum.reduceat(weights, starts) if len(starts) else weights,
            most=np.maximum.reduceat(weights, starts) if len(starts) else weights,
        )
