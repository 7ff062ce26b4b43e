"""Values of one metadata field over some rows: how often each value occurs (facets), and which rows come first when
they are sorted by them.

Both are read from the metadata index, never from the JSON text.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

import numpy as np

from shared.process import work
from shared.search.model import OrderKey
from shared.search.source import FacetValue
from shared.segment.metadata_columns import Kind, NumberColumn, TextColumn
from shared.segment.metadata_index import MetadataIndex
from shared.vectors.arrays import Int64Array, Mask, Positions, RowNumbers

_BOOLEANS: Final = frozenset({Kind.BOOL, Kind.BOOLS})
"""Kinds whose values the index has as numbers."""

_NO_VALUE_RANK: Final = np.iinfo(np.int64).max
"""The rank of a row without a value: it comes last in either direction."""


def value_counts(index: MetadataIndex, key: str, mask: Mask) -> Iterator[tuple[FacetValue, int]]:
    """Each value at `key`, be it a scalar or an element of an array, with the number of rows in the mask that have it.
    A value may come twice, as a scalar and as an element.
    """
    for kind in Kind:
        work.check()
        column = index.column(key, kind)
        if isinstance(column, TextColumn):
            having = np.add.reduceat(mask[column.rows], column.starts[:-1], dtype=np.int64)
            for place in work.checked(np.flatnonzero(having).tolist()):
                yield column.value(place), int(having[place])
        elif isinstance(column, NumberColumn):
            values, having = np.unique(column.values[mask[column.rows]], return_counts=True)
            if kind in _BOOLEANS:
                values = values.astype(np.bool_)
            yield from zip(values.tolist(), having.tolist(), strict=True)


def first_rows(
    index: MetadataIndex, order_by: Sequence[OrderKey], rows: RowNumbers, inserted: Positions, limit: int | None
) -> RowNumbers:
    """The first `limit` (None: all) of `rows`, sorted by the fields of `order_by`, ties by `inserted` (parallel to the
    rows).
    """
    keys: list[Int64Array] = [inserted]
    for step in reversed(order_by):
        work.check()
        ranks = _ranks(index, step.key)[rows]
        if step.direction == "desc":
            ranks = np.where(ranks == _NO_VALUE_RANK, _NO_VALUE_RANK, -ranks)
        keys.append(ranks)
    return rows[np.lexsort(keys)[:limit]]


def _ranks(index: MetadataIndex, key: str) -> Int64Array:
    """For every row the rank of its scalar at `key` among all values there, int64 [index.rows]: booleans, then numbers,
    then strings; equal values have equal ranks, rows without a value _NO_VALUE_RANK.
    """
    ranks = np.full(index.rows, _NO_VALUE_RANK)
    before = 0
    numbers = [index.column(key, kind) for kind in (Kind.INT, Kind.FLOAT)]
    for columns in ([index.column(key, Kind.BOOL)], numbers):
        present = [column for column in columns if isinstance(column, NumberColumn)]
        if present:
            # Wide enough for every int64 and every float64, so that the two compare exactly.
            values = np.concatenate([column.values.astype(np.longdouble) for column in present])
            distinct, places = np.unique(values, return_inverse=True)
            ranks[np.concatenate([column.rows for column in present])] = before + places
            before += len(distinct)
    texts = index.column(key, Kind.STR)
    if isinstance(texts, TextColumn):
        lengths = np.diff(texts.starts)
        ranks[texts.rows] = before + np.repeat(np.arange(len(lengths)), lengths)
    return ranks
