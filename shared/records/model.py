"""Records, operations and batches as columns.

Two Arrow schemas carry all data of the project:

* a *batch of operations*, the payload of a log entry (`batch_schema`), one row per operation;
* a *table of records*, the content of a segment (`record_schema`), one row per live record, in insertion order.

Metadata travels as JSON text, one object per row, from the frontend to the segment and back to the answer.
In a batch it is a patch: a null member removes that key. In a record it has no null members and is null when
there is no metadata at all. Integers and floats are told apart by the spelling (`2` and `2.0`).
"""

from __future__ import annotations

import enum
import functools
from typing import Final

import pyarrow as pa


class Op(enum.IntEnum):
    """The kinds of operations. The values are stored in the log."""

    ADD = 0
    UPDATE = 1
    UPSERT = 2
    DELETE = 3


class Include(enum.StrEnum):
    """The columns that an answer may hold, under their names in requests."""

    DISTANCES = "distances"
    DOCUMENTS = "documents"
    EMBEDDINGS = "embeddings"
    METADATAS = "metadatas"
    URIS = "uris"


class ReadLevel(enum.StrEnum):
    """The freshness that a read asks for (docs/wire.md): all of the log, none of it, or as much as is at hand."""

    INDEX_AND_WAL = "index_and_wal"
    INDEX_ONLY = "index_only"
    INDEX_AND_BOUNDED_WAL = "index_and_bounded_wal"


FIRST_POSITION: Final = 1
"""The first position of every collection."""

HIDDEN_METADATA_PREFIX: Final = "chroma:"
"""Metadata keys beginning so are stored and never shown."""


def embedding_type(dimension: int) -> pa.DataType:
    """The Arrow type of an embedding column: a list of so many float32."""
    return pa.list_(pa.float32(), dimension)


@functools.lru_cache(maxsize=64)
def batch_schema(dimension: int | None) -> pa.Schema:
    """Columns of a batch of operations. `offset` is the operation's place in its append: the operation's
    position is the append's first position plus `offset` (the rows of one shard need not be consecutive).
    `embedding` is there only when some row has one; its null rows mean «keep».
    """
    fields = [
        pa.field("op", pa.uint8(), nullable=False),
        pa.field("offset", pa.uint32(), nullable=False),
        pa.field("id", pa.string(), nullable=False),
        pa.field("document", pa.string()),
        pa.field("metadata", pa.string()),
        pa.field("uri", pa.string()),
    ]
    if dimension is not None:
        fields.append(pa.field("embedding", embedding_type(dimension)))
    return pa.schema(fields)


def record_schema(dimension: int) -> pa.Schema:
    """Columns of a table of records. `inserted` is the position of the operation that created the record (it
    survives updates and gives the order of `get`); `written` that of the last operation that changed it;
    `digest` is the 16-byte hash of `shared.records.digest`. Text is `large_string` (64-bit offsets), so that a segment
    is one record batch however large its documents are.
    """
    return pa.schema(
        [
            pa.field("id", pa.large_string(), nullable=False),
            pa.field("inserted", pa.int64(), nullable=False),
            pa.field("written", pa.int64(), nullable=False),
            pa.field("digest", pa.binary(16), nullable=False),
            pa.field("embedding", embedding_type(dimension), nullable=False),
            pa.field("document", pa.large_string()),
            pa.field("metadata", pa.large_string()),
            pa.field("uri", pa.large_string()),
        ]
    )
