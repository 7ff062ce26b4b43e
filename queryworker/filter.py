"""Filters as set algebra: which rows of a part match a `where`, one boolean per row.

The metadata index answers positives with row numbers; a negative is the complement of its positive, so it matches
rows without the key, without metadata or with another type. The rules are the wire contract's, section 14.
"""

from __future__ import annotations

from typing import Protocol

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from queryworker.text import Mask, containing, matching
from shared.segment.metadata_index import MetadataIndex
from shared.where import (
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

_SPARSE_SHARE = 4
"""Documents are gathered before they are searched when at most one row in this many is of interest."""


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


def evaluate(where: Where, part: Part, within: Mask | None = None) -> Mask:
    """The rows of `part` that match. With `within`, only its rows are of interest and the others come out False."""
    if isinstance(where, All | AnyOf):
        return _join(where, part, within)
    if isinstance(where, DocumentContains | DocumentRegex):
        found = _documents(where, part, within)
    elif isinstance(where, IdIn):
        wanted = pa.array(where.ids, type=part.ids.type)
        found = pc.is_in(part.ids, value_set=wanted).to_numpy(zero_copy_only=False)
    else:
        found = _metadata(where, part)
    if _negated(where):
        found = ~found
    return found if within is None else found & within


def _negated(where: Where) -> bool:
    return where.op is Compare.NE if isinstance(where, MetadataCompare) else getattr(where, "negated", False)


def _join(where: All | AnyOf, part: Part, within: Mask | None) -> Mask:
    """Cheap clauses first; each next one is asked only about the rows that are still undecided."""
    open_rows = np.ones(part.rows, dtype=bool) if within is None else within.copy()
    found = np.zeros(part.rows, dtype=bool)
    for clause in sorted(where.clauses, key=_cost):
        if not open_rows.any():
            break
        hit = evaluate(clause, part, open_rows)
        if isinstance(where, All):
            open_rows = hit
        else:
            found |= hit
            open_rows &= ~hit
    return open_rows if isinstance(where, All) else found


def _cost(where: Where) -> int:
    """What a clause costs, as a rank: an index, a literal in every document, a pattern in every document."""
    if isinstance(where, All | AnyOf):
        return max(map(_cost, where.clauses), default=0)
    if isinstance(where, DocumentRegex):
        return 2
    return 1 if isinstance(where, DocumentContains) else 0


def _metadata(where: MetadataCompare | MetadataIn | ArrayContains, part: Part) -> Mask:
    """The positive form, from the index."""
    mask = np.zeros(part.rows, dtype=bool)
    index = part.metadata
    if isinstance(where, ArrayContains):
        mask[index.contains(where.key, where.value)] = True
    elif isinstance(where, MetadataIn):
        for value in where.values:
            mask[index.equals(where.key, value)] = True
    elif where.op in (Compare.EQ, Compare.NE):
        mask[index.equals(where.key, where.value)] = True
    elif isinstance(where.value, str | bool):
        raise TypeError(f"{where.op} takes a number, not {where.value!r}")
    else:
        mask[index.compare(where.key, where.op, where.value)] = True
    return mask


def _documents(where: DocumentContains | DocumentRegex, part: Part, within: Mask | None) -> Mask:
    """The positive form; rows outside `within` are not looked at when they are many."""

    def search(documents: pa.Array) -> Mask:
        if isinstance(where, DocumentContains):
            return containing(documents, where.text)
        return matching(documents, where.pattern)

    if within is None:
        return search(part.documents)
    chosen = np.flatnonzero(within)
    if _SPARSE_SHARE * len(chosen) > part.rows:
        return search(part.documents)
    mask = np.zeros(part.rows, dtype=bool)
    mask[chosen] = search(part.documents.take(pa.array(chosen)))
    return mask
