"""The operations that a request appends, as columns, and several requests' operations as one batch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any, Final

import numpy as np
import pyarrow as pa

from frontend.request_limits import check_limit
from shared.catalog import Collection
from shared.limits import NEW_PAIRS_MAX
from shared.log.batch import build_batch
from shared.records.model import Op
from shared.vectors.arrays import RowNumbers, Vectors

SMALL_BYTES_MAX: Final = 64 * 1024
"""Size of a request body, in bytes, from which on its write is appended by itself: grouping would gain it nothing, and
the others would wait for it."""


def new_keys_of(collection: Collection, kinds: frozenset[tuple[str, str]]) -> list[tuple[str, str]]:
    """Those of the (metadata key, value type) pairs that the collection is not known to have. Raises LimitExceeded for
    more than one append may bring.
    """
    new_keys = sorted(kinds - collection.keys)
    check_limit("new metadata keys", len(new_keys), NEW_PAIRS_MAX, "metadatas")
    return new_keys


@dataclass(frozen=True, slots=True)
class Operations:
    """The operations of one request: columns as `shared.log.batch.build_batch` takes them (embeddings float32 [m, d],
    metadata as JSON text). `kinds` are the (key, type) pairs of the metadata. `size` is about how many bytes the
    request had; None when that is unknown.
    """

    op: Op
    ids: Sequence[str]
    embeddings: Vectors | None = None
    embedding_rows: RowNumbers | None = None
    documents: Sequence[str | None] | None = None
    metadatas: Sequence[bytes | None] | None = None
    uris: Sequence[str | None] | None = None
    kinds: frozenset[tuple[str, str]] = frozenset()
    size: int | None = None

    @property
    def width(self) -> int | None:
        """The dimension of the embeddings; None without embeddings."""
        return None if self.embeddings is None else self.embeddings.shape[1]

    @property
    def rows_embedded(self) -> RowNumbers:
        """The rows that have an embedding, int64 [m], ascending."""
        if self.embedding_rows is not None:
            return self.embedding_rows
        return np.arange(0 if self.embeddings is None else len(self.ids))

    @property
    def small(self) -> bool:
        """Whether the write goes into a group."""
        return self.size is not None and self.size <= SMALL_BYTES_MAX


def joined(operations: Sequence[Operations]) -> pa.RecordBatch:
    """A single batch (`shared.records.model.batch_schema`) of several requests' operations, in their order. All
    embeddings have one width.
    """
    if len(operations) == 1:
        (only,) = operations
        return build_batch(
            only.op, only.ids, only.embeddings, only.embedding_rows, only.documents, only.metadatas, only.uris
        )
    lengths = [len(each.ids) for each in operations]
    rows = None
    if any(each.embeddings is None or each.embedding_rows is not None for each in operations):
        starts = np.cumsum([0, *lengths[:-1]])
        rows = np.concatenate([start + each.rows_embedded for each, start in zip(operations, starts, strict=True)])
    given = [each.embeddings for each in operations if each.embeddings is not None]
    return build_batch(
        np.repeat(np.array([each.op for each in operations], dtype=np.uint8), lengths),
        list(chain.from_iterable(each.ids for each in operations)),
        np.concatenate(given) if given else None,
        rows,
        _column([each.documents for each in operations], lengths),
        _column([each.metadatas for each in operations], lengths),
        _column([each.uris for each in operations], lengths),
    )


def _column(columns: Sequence[Sequence[Any] | None], lengths: Sequence[int]) -> list[Any] | None:
    """The columns end to end, where a column that is None counts as `lengths` nulls; None when all columns are None."""
    if all(column is None for column in columns):
        return None
    filled = ([None] * length if column is None else column for column, length in zip(columns, lengths, strict=True))
    return list(chain.from_iterable(filled))
