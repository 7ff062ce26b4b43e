"""Filters as set algebra: which rows of a part match a `where`.

Indexes answer first. The metadata index knows its clauses exactly; the text index knows which documents *may* match a
clause about documents, and where there is none all may. So a verdict is two sets of rows, those that match for sure and
those that may match, and a way to decide about single rows by reading their documents. Both sets go through the algebra
alike. Whoever wants only the nearest or the first few rows decides about few; who counts decides about all that are
open.

A negative is the complement of its positive, so it matches rows without the key, without metadata or with another
type. The rules are in docs/wire.md, section 14.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Final, Protocol

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from queryworker.filter.text import candidates, containing, matching
from shared.records.where import (
    All,
    AnyOf,
    ArrayContains,
    Compare,
    DocumentContains,
    DocumentRegex,
    IdIn,
    MetadataCompare,
    MetadataIn,
    Where,
)
from shared.segment.metadata_index import MetadataIndex
from shared.segment.text_index import TextIndex
from shared.vectors.arrays import Mask, RowNumbers

_SPARSE_SHARE = 4
"""Documents are gathered before they are searched when at most one row in this many is of interest."""

OPEN_MAX: Final = 8
"""Clauses about documents that one verdict may be open about. Each holds masks of the whole part for as long as the
verdict is kept, and a client may name thousands: further ones are decided about at once.
"""


class Part(Protocol):
    """What is filtered: a segment or a run of the tail. Columns are parallel, `rows` long."""

    @property
    def rows(self) -> int: ...
    @property
    def ids(self) -> pa.Array: ...
    @property
    def documents(self) -> pa.Array: ...
    @property
    def metadata(self) -> MetadataIndex: ...
    @property
    def text_index(self) -> TextIndex | None: ...


@dataclass(slots=True)
class Verdict:
    """What a filter says of the rows of a part; any number of threads may use it. `sure` is a part of `maybe`, and the
    very same array when nothing is open. `decide` tells of any rows (ascending or not) which match; `opened` is how
    many clauses it looks into documents for.
    """

    sure: Mask
    maybe: Mask
    decide: Callable[[RowNumbers], Mask]
    opened: int = 0

    @property
    def settled(self) -> bool:
        return self.sure is self.maybe

    def settle(self) -> Mask:
        """Decides about all that is open, once; the rows that match."""
        sure, maybe = self.sure, self.maybe
        if sure is not maybe:
            found = sure.copy()
            opened = np.flatnonzero(maybe & ~sure)
            found[opened] = self.decide(opened)
            self.maybe = found  # this one first: what another thread sees in between is true as well
            self.sure = found
            self.decide, self.opened = found.__getitem__, 0  # lets go of the clauses
        return self.sure

    def part(self, begin: int, end: int) -> Verdict:
        """Of the rows [begin, end) alone, numbered from there."""
        settled, maybe = self.settled, self.maybe[begin:end]
        sure = maybe if settled else self.sure[begin:end]
        return Verdict(sure, maybe, lambda rows: self.decide(rows + begin))


def end_to_end(parts: Sequence[tuple[int, Verdict]]) -> Verdict:
    """The verdicts of stretches of rows as one; with each, its first row."""
    if len(parts) == 1:
        return parts[0][1]
    maybe = np.concatenate([np.empty(0, np.bool_), *(verdict.maybe for _, verdict in parts)])
    if all(verdict.settled for _, verdict in parts):
        return _settled(maybe)
    sure = np.concatenate([verdict.sure for _, verdict in parts])
    starts = np.array([start for start, _ in parts])

    def decide(rows: RowNumbers) -> Mask:
        found = np.zeros(len(rows), np.bool_)
        of = np.searchsorted(starts, rows, side="right") - 1
        for number in np.unique(of):
            here = np.flatnonzero(of == number)
            found[here] = parts[number][1].decide(rows[here] - starts[number])
        return found

    return Verdict(sure, maybe, decide)


def evaluate(where: Where, part: Part) -> Verdict:
    """What `where` says of the rows of `part`."""
    if isinstance(where, All):
        return _all((evaluate(clause, part) for clause in sorted(where.clauses, key=_cost)), part.rows)
    if isinstance(where, AnyOf):
        return _any((evaluate(clause, part) for clause in sorted(where.clauses, key=_cost)), part.rows)
    if isinstance(where, DocumentContains | DocumentRegex):
        return _documents(where, part)
    found = _ids(where, part) if isinstance(where, IdIn) else _metadata(where, part)
    if _negated(where):
        found = ~found
    return _settled(found)


def _settled(found: Mask) -> Verdict:
    return Verdict(found, found, found.__getitem__)


def _negated(where: Where) -> bool:
    return where.op is Compare.NE if isinstance(where, MetadataCompare) else getattr(where, "negated", False)


def _cost(where: Where) -> int:
    """What deciding about a row costs, as a rank: a bit, a literal in its document, a pattern in its document."""
    if isinstance(where, All | AnyOf):
        return max(map(_cost, where.clauses), default=0)
    if isinstance(where, DocumentRegex):
        return 2
    return 1 if isinstance(where, DocumentContains) else 0


# ---- all, any: cheap clauses first; each next one decides only about rows that are still open


def _all(clauses: Iterable[Verdict], rows: int) -> Verdict:
    known, opened = _known(np.logical_and, clauses, np.ones(rows, np.bool_))
    if not opened:
        return _settled(known)
    maybe = _folded(np.logical_and, known, [clause.maybe for clause in opened])
    sure = _folded(np.logical_and, known, [clause.sure for clause in opened])

    def decide(rows: RowNumbers) -> Mask:
        found = maybe[rows]
        for clause in opened:
            left = np.flatnonzero(found)
            found[left] = clause.decide(rows[left])
        return found

    return Verdict(sure, maybe, decide, sum(clause.opened for clause in opened))


def _any(clauses: Iterable[Verdict], rows: int) -> Verdict:
    known, opened = _known(np.logical_or, clauses, np.zeros(rows, np.bool_))
    if not opened:
        return _settled(known)
    sure = _folded(np.logical_or, known, [clause.sure for clause in opened])
    maybe = _folded(np.logical_or, known, [clause.maybe for clause in opened])

    def decide(rows: RowNumbers) -> Mask:
        found = sure[rows]
        for clause in opened:
            left = np.flatnonzero(~found)
            found[left] = clause.decide(rows[left])
        return found

    return Verdict(sure, maybe, decide, sum(clause.opened for clause in opened))


def _known(join: np.ufunc, clauses: Iterable[Verdict], known: Mask) -> tuple[Mask, list[Verdict]]:
    """The settled clauses joined, into `known`, and the open ones. One clause is held at a time, however many there
    are.
    """
    opened: list[Verdict] = []
    for clause in clauses:
        if clause.opened + sum(other.opened for other in opened) > OPEN_MAX:
            clause.settle()
        if clause.settled:
            join(known, clause.sure, out=known)
        else:
            opened.append(clause)
    return known, opened


def _folded(join: np.ufunc, known: Mask, masks: Sequence[Mask]) -> Mask:
    """All of the masks joined, in a new array."""
    found: Mask = known.copy()
    for mask in masks:
        join(found, mask, out=found)
    return found


# ---- clauses


def _metadata(where: MetadataCompare | MetadataIn | ArrayContains, part: Part) -> Mask:
    """The positive form, from the index."""
    found = np.zeros(part.rows, np.bool_)
    index = part.metadata
    if isinstance(where, ArrayContains):
        found[index.contains(where.key, where.value)] = True
    elif isinstance(where, MetadataIn):
        for value in where.values:
            found[index.equals(where.key, value)] = True
    elif where.op in (Compare.EQ, Compare.NE):
        found[index.equals(where.key, where.value)] = True
    elif isinstance(where.value, str | bool):
        raise TypeError(f"{where.op} takes a number, not {where.value!r}")
    else:
        found[index.compare(where.key, where.op, where.value)] = True
    return found


def _ids(where: IdIn, part: Part) -> Mask:
    wanted = pa.array(where.ids, type=part.ids.type)
    found: Mask = pc.is_in(part.ids, value_set=wanted).to_numpy(zero_copy_only=False)
    return found


def _documents(where: DocumentContains | DocumentRegex, part: Part) -> Verdict:
    """Open wherever the text index does not exclude the document."""
    some, none = np.ones(part.rows, np.bool_), np.zeros(part.rows, np.bool_)
    found = None if part.text_index is None else candidates(where, part.text_index)
    if found is not None:
        some = none.copy()
        some[np.frombuffer(found.to_array(), np.uint32)] = True
    negated = where.negated

    def decide(rows: RowNumbers) -> Mask:
        hit = some[rows]
        left = np.flatnonzero(hit)
        hit[left] = _search(where, part.documents, rows[left])
        return ~hit if negated else hit

    return Verdict(~some, ~none, decide, 1) if negated else Verdict(none, some, decide, 1)


def _search(where: DocumentContains | DocumentRegex, documents: pa.Array, rows: RowNumbers) -> Mask:
    """Which of these rows have a document as the positive form wants it."""

    def search(within: pa.Array) -> Mask:
        if isinstance(where, DocumentContains):
            return containing(within, where.text)
        return matching(within, where.pattern)

    if _SPARSE_SHARE * len(rows) > len(documents):
        return search(documents)[rows]
    return search(documents.take(pa.array(rows)))
