"""The result of a filter on some rows, which may leave rows undecided until their documents are read.

The metadata index knows exactly which rows match a clause about metadata. The text index is lossy: it knows which
documents *may* match a clause about documents. So a result has two masks, and a way to resolve single rows by reading
their documents (what PostgreSQL calls the recheck of a lossy index).

```text
row           0  1  2  3  4  5  6  7
matching      x  .  .  x  .  .  .  .     these rows match
candidates    x  .  x  x  .  .  x  .     these match or may match: a superset of `matching`
undecided     .  .  x  .  .  .  x  .     the difference: resolved by reading documents
```

AND and OR work on both masks alike. A search for the nearest or the first few rows resolves only the rows that it
comes across; a count resolves all.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from shared.vectors.arrays import Mask, RowNumbers

UNDECIDED_CLAUSES_MAX: Final = 8
"""Most clauses about documents that one result leaves undecided. Each holds masks over all rows for as long as the
result is kept, and a client may send thousands of clauses: further ones are resolved when the filter is evaluated.
"""


@dataclass(slots=True)
class FilterResult:
    """Which of `n` rows match a filter. Any number of threads may use one result at the same time.

    `matching` and `candidates` are masks of n rows; they are the same array when no row is undecided. `resolve` takes
    numbers of rows, in any order, and gives a mask over *them*: which of them match. It reads the documents of those
    that are undecided. `undecided_clauses` is the number of clauses about documents that it would evaluate.
    """

    matching: Mask
    candidates: Mask
    resolve: Callable[[RowNumbers], Mask]
    undecided_clauses: int = 0

    @property
    def resolved(self) -> bool:
        """Whether no row is undecided."""
        return self.matching is self.candidates

    def resolve_all(self) -> Mask:
        """Resolve all undecided rows, once and for all; the mask of the rows that match."""
        matching, candidates = self.matching, self.candidates
        if matching is not candidates:
            found = matching.copy()
            undecided = np.flatnonzero(candidates & ~matching)
            found[undecided] = self.resolve(undecided)
            # In this order, so that what another thread sees in between is true as well.
            self.candidates = found
            self.matching = found
            self.resolve, self.undecided_clauses = found.__getitem__, 0  # lets go of the clauses
        return self.matching

    def slice(self, begin: int, end: int) -> FilterResult:
        """The result on the rows [begin, end) alone, numbered from 0; this very result when these are all rows, so that
        what is resolved of it is resolved for all who share it.
        """
        if (begin, end) == (0, len(self.candidates)):
            return self
        resolved, candidates = self.resolved, self.candidates[begin:end]
        matching = candidates if resolved else self.matching[begin:end]
        return FilterResult(matching, candidates, lambda rows: self.resolve(rows + begin))


def exact(matching: Mask) -> FilterResult:
    """The result of a filter that an index answers exactly."""
    return FilterResult(matching, matching, matching.__getitem__)


def concatenated(results: Sequence[tuple[int, FilterResult]]) -> FilterResult:
    """The results on consecutive ranges of rows as one; with each comes the number of its first row, ascending.

    A range of which most rows are to be resolved is resolved as a whole: then that is done once for all filters that
    share its result.
    """
    if len(results) == 1:
        return results[0][1]
    resolved = all(result.resolved for _, result in results)  # before the masks: a thread may resolve one meanwhile
    candidates = np.concatenate([np.empty(0, np.bool_), *(result.candidates for _, result in results)])
    if resolved:
        return exact(candidates)
    matching = np.concatenate([result.matching for _, result in results])
    starts = np.array([start for start, _ in results])

    def resolve(rows: RowNumbers) -> Mask:
        found = np.zeros(len(rows), np.bool_)
        range_of_row = np.searchsorted(starts, rows, side="right") - 1
        for number in np.unique(range_of_row):
            places = np.flatnonzero(range_of_row == number)
            result, in_range = results[number][1], rows[places] - starts[number]
            if 2 * len(in_range) > len(result.candidates):
                result.resolve_all()
            found[places] = result.resolve(in_range)
        return found

    return FilterResult(matching, candidates, resolve)


def conjunction(clauses: Iterable[FilterResult], rows: int) -> FilterResult:
    """The rows, of so many, that all clauses match; all rows when there is no clause. Clauses come with the cheapest to
    resolve first: each is asked only about the rows that those before it left.
    """
    known, undecided = _joined_known(np.logical_and, clauses, np.ones(rows, np.bool_))
    if not undecided:
        return exact(known)
    candidates = _joined(np.logical_and, known, [clause.candidates for clause in undecided])
    matching = _joined(np.logical_and, known, [clause.matching for clause in undecided])

    def resolve(rows: RowNumbers) -> Mask:
        found = candidates[rows]
        for clause in undecided:
            left = np.flatnonzero(found)
            found[left] = clause.resolve(rows[left])
        return found

    return FilterResult(matching, candidates, resolve, sum(clause.undecided_clauses for clause in undecided))


def disjunction(clauses: Iterable[FilterResult], rows: int) -> FilterResult:
    """The rows, of so many, that some clause matches; none when there is no clause. Clauses come with the cheapest to
    resolve first: each is asked only about the rows that none before it matched.
    """
    known, undecided = _joined_known(np.logical_or, clauses, np.zeros(rows, np.bool_))
    if not undecided:
        return exact(known)
    matching = _joined(np.logical_or, known, [clause.matching for clause in undecided])
    candidates = _joined(np.logical_or, known, [clause.candidates for clause in undecided])

    def resolve(rows: RowNumbers) -> Mask:
        found = matching[rows]
        for clause in undecided:
            left = np.flatnonzero(~found)
            found[left] = clause.resolve(rows[left])
        return found

    return FilterResult(matching, candidates, resolve, sum(clause.undecided_clauses for clause in undecided))


def _joined_known(join: np.ufunc, clauses: Iterable[FilterResult], known: Mask) -> tuple[Mask, list[FilterResult]]:
    """The resolved clauses joined into `known`, and the clauses with undecided rows. However many clauses there are,
    one that is resolved is held at a time.
    """
    undecided: list[FilterResult] = []
    for clause in clauses:
        if clause.undecided_clauses + sum(other.undecided_clauses for other in undecided) > UNDECIDED_CLAUSES_MAX:
            clause.resolve_all()
        if clause.resolved:
            join(known, clause.matching, out=known)
        else:
            undecided.append(clause)
    return known, undecided


def _joined(join: np.ufunc, known: Mask, masks: Sequence[Mask]) -> Mask:
    """All of the masks joined, in a new array."""
    found: Mask = known.copy()
    for mask in masks:
        join(found, mask, out=found)
    return found
