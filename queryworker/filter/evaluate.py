"""Evaluation of a filter (`where`) as set algebra: clause by clause over columns and indexes, then AND and OR of masks.

The negative of a clause is the complement of its positive, so it matches rows without the key, without metadata or with
a value of another type. The rules are in docs/wire.md, section 14.
"""

from __future__ import annotations

from typing import Final, Protocol

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from queryworker.filter.result import FilterResult, conjunction, disjunction, exact
from queryworker.filter.text import candidate_rows, containing, matching
from shared.process import work
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

GATHERED_SHARE_MAX: Final = 1 / 4
"""Documents are gathered into a column of their own before they are searched when they are at most this share of all;
else the whole column is searched.
"""

CHECKED_IDS: Final = 512 * 1024
"""Ids that are looked up between two looks at whether the work is still wanted: some 30 ms."""


class FilterColumns(Protocol):
    """The rows that a filter is evaluated on: the columns and indexes of `rows` rows, be they a segment's or the
    tail's.
    """

    @property
    def rows(self) -> int: ...
    @property
    def ids(self) -> pa.Array:
        """Strings, one per row."""
        ...

    @property
    def documents(self) -> pa.Array:
        """Strings or null, one per row."""
        ...

    @property
    def metadata(self) -> MetadataIndex: ...
    @property
    def text_index(self) -> TextIndex | None:
        """The text index of the documents, None where there is none: every document may match then."""
        ...


def evaluate(where: Where, columns: FilterColumns) -> FilterResult:
    """Which of the rows match. Raises InvalidArgument for a pattern that the engine of regular expressions refuses, and
    TypeError for an order comparison with something other than a number, which no frontend sends.
    """
    work.check()
    if isinstance(where, All):
        return conjunction((evaluate(clause, columns) for clause in _cheapest_first(where)), columns.rows)
    if isinstance(where, AnyOf):
        return disjunction((evaluate(clause, columns) for clause in _cheapest_first(where)), columns.rows)
    if isinstance(where, DocumentContains | DocumentRegex):
        return _filter_documents(where, columns)
    found = _filter_ids(where, columns) if isinstance(where, IdIn) else _filter_metadata(where, columns)
    if _negated(where):
        found = ~found
    return exact(found)


def _negated(where: MetadataCompare | MetadataIn | ArrayContains | IdIn) -> bool:
    return where.op is Compare.NE if isinstance(where, MetadataCompare) else where.negated


def _cheapest_first(where: All | AnyOf) -> list[Where]:
    return sorted(where.clauses, key=_cost)


def _cost(where: Where) -> int:
    """The cost of resolving a row, as a rank: 0 a bit, 1 a literal in its document, 2 a pattern in its document."""
    if isinstance(where, All | AnyOf):
        return max(map(_cost, where.clauses), default=0)
    if isinstance(where, DocumentRegex):
        return 2
    return 1 if isinstance(where, DocumentContains) else 0


def _filter_metadata(where: MetadataCompare | MetadataIn | ArrayContains, columns: FilterColumns) -> Mask:
    """The rows that match the positive form of the clause, from the metadata index."""
    found = np.zeros(columns.rows, np.bool_)
    index = columns.metadata
    if isinstance(where, ArrayContains):
        found[index.contains(where.key, where.value)] = True
    elif isinstance(where, MetadataIn):
        for value in work.checked(where.values):
            found[index.equals(where.key, value)] = True
    elif where.op in (Compare.EQ, Compare.NE):
        found[index.equals(where.key, where.value)] = True
    elif isinstance(where.value, str | bool):
        raise TypeError(f"{where.op} takes a number, not {where.value!r}")
    else:
        found[index.compare(where.key, where.op, where.value)] = True
    return found


def _filter_ids(where: IdIn, columns: FilterColumns) -> Mask:
    """The rows whose id is one of the clause's."""
    wanted = pa.array(where.ids, type=columns.ids.type)
    found: Mask = np.empty(columns.rows, np.bool_)
    for at in range(0, columns.rows, CHECKED_IDS):
        work.check()
        part = columns.ids.slice(at, CHECKED_IDS)
        found[at : at + CHECKED_IDS] = pc.is_in(part, value_set=wanted).to_numpy(zero_copy_only=False)
    return found


def _filter_documents(where: DocumentContains | DocumentRegex, columns: FilterColumns) -> FilterResult:
    """A result that is undecided about every row whose document the text index does not exclude."""
    possible, none = np.ones(columns.rows, np.bool_), np.zeros(columns.rows, np.bool_)
    indexed = None if columns.text_index is None else candidate_rows(where, columns.text_index)
    if indexed is not None:
        possible = none.copy()
        possible[np.frombuffer(indexed.to_array(), np.uint32)] = True
    negated = where.negated

    def resolve(rows: RowNumbers) -> Mask:
        found = possible[rows]
        left = np.flatnonzero(found)
        found[left] = _search_documents(where, columns.documents, rows[left])
        return ~found if negated else found

    if negated:
        return FilterResult(~possible, ~none, resolve, 1)
    return FilterResult(none, possible, resolve, 1)


def _search_documents(where: DocumentContains | DocumentRegex, documents: pa.Array, rows: RowNumbers) -> Mask:
    """Which of these rows have a document that matches the positive form of the clause."""

    def search(column: pa.Array) -> Mask:
        if isinstance(where, DocumentContains):
            return containing(column, where.text)
        return matching(column, where.pattern)

    if len(rows) > GATHERED_SHARE_MAX * len(documents):
        return search(documents)[rows]
    return search(documents.take(pa.array(rows)))
