"""Fields of metadata as columns: how often each value occurs among some rows, which rows come first by their values.

Both read the metadata index, never the JSON text.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Final

import numpy as np

from shared.search.model import OrderKey
from shared.segment.metadata_columns import Kind, NumberColumn, TextColumn
from shared.segment.metadata_index import MetadataIndex
from shared.vectors.arrays import Int64Array, Mask, Positions, RowNumbers

_BOOLEANS: Final = frozenset({Kind.BOOL, Kind.BOOLS})
_LAST: Final = np.iinfo(np.int64).max


def value_counts(index: MetadataIndex, key: str, mask: Mask) -> Iterator[tuple[Any, int]]:
    """Each value at `key`, of scalars and of elements of arrays, with the number of rows in the mask that have it; the
    same value may come twice, as a scalar and as an element.
    """
    for kind in Kind:
        column = index.column(key, kind)
        if isinstance(column, TextColumn):
            having = np.add.reduceat(mask[column.rows], column.starts[:-1], dtype=np.int64)
            for place in np.flatnonzero(having).tolist():
                yield column.value(place), int(having[place])
        elif isinstance(column, NumberColumn):
            values, having = np.unique(column.values[mask[column.rows]], return_counts=True)
            if kind in _BOOLEANS:
                values = values.astype(np.bool_)
            yield from zip(values.tolist(), having.tolist(), strict=True)


def first_rows(
    index: MetadataIndex, order_by: Sequence[OrderKey], rows: RowNumbers, inserted: Positions, limit: int | None
) -> RowNumbers:
    """The first `limit` of `rows` by `order_by`, ties by `inserted` (parallel to the rows)."""
    keys: list[Int64Array] = [inserted]
    for step in reversed(order_by):
        ranks = _ranks(index, step.key)[rows]
        if step.direction == "desc":
            ranks = np.where(ranks == _LAST, _LAST, -ranks)
        keys.append(ranks)
    return rows[np.lexsort(keys)[:limit]]


def _ranks(index: MetadataIndex, key: str) -> Int64Array:
    """Of every row the rank of its scalar at `key` among all values there, equal values alike; _LAST without one."""
    ranks = np.full(index.rows, _LAST)
    before = 0
    numbers = [index.column(key, kind) for kind in (Kind.INT, Kind.FLOAT)]
    for columns in ([index.column(key, Kind.BOOL)], numbers):
        there = [column for column in columns if isinstance(column, NumberColumn)]
        if there:
            # Wide enough for every int64 and every float64, so that the two compare exactly.
            values = np.concatenate([column.values.astype(np.longdouble) for column in there])
            distinct, places = np.unique(values, return_inverse=True)
            ranks[np.concatenate([column.rows for column in there])] = before + places
            before += len(distinct)
    texts = index.column(key, Kind.STR)
    if isinstance(texts, TextColumn):
        lengths = np.diff(texts.starts)
        ranks[texts.rows] = before + np.repeat(np.arange(len(lengths)), lengths)
    return ranks
