"""The requests of a frontend to a query worker, one shard at a time, and their responses.

Encoded as msgpack by msgspec. Arrays of numbers travel as the bytes of little-endian numpy arrays: `float32` for
vectors and distances, `int64` for positions. `position` in an answer is the exclusive upper bound of what was read.
"""

from __future__ import annotations

import msgspec

from shared.records.columns import Columns
from shared.records.explanation import Explanation
from shared.records.model import Include, ReadLevel
from shared.records.selection import Selection


class Shard(msgspec.Struct, frozen=True, omit_defaults=True):
    """A shard of a collection, and how it is read. With `as_of`, the state at that log position (exclusive) is meant; a
    worker that cannot read as of it answers StaleRead. It looks for what it has not in memory only for a read of the
    `past`: others do better to begin anew with a later position.
    """

    collection: str
    shard: int = 0
    read_level: ReadLevel = ReadLevel.INDEX_AND_WAL
    as_of: int | None = None
    past: bool = False


class PrefetchRequest(msgspec.Struct, frozen=True):
    """Load the shard: it will be read at this worker. The answer is empty."""

    shard: Shard


class CountRequest(msgspec.Struct, frozen=True):
    """Count the records that the selection matches."""

    shard: Shard
    selection: Selection = Selection()


class CountResponse(msgspec.Struct, frozen=True):
    """The number of matching records."""

    count: int
    position: int


class GetRequest(msgspec.Struct, frozen=True, omit_defaults=True):
    """Matching records in insertion order, `offset` skipped, at most `limit` of them.

    `documents` .. `embeddings` choose the columns; ids and `inserted` always come, `written` when it is asked for.
    With `inserted` given (int64), exactly the records inserted at those positions are meant and selection, offset and
    limit are ignored: the second phase of a read over several shards.

    With `include`, the list that the client sent, the answer is not a GetResponse but the body of the client's answer
    (`shared.records.answers`): for the frontend that asks the only shard of a collection. With `in_parts` the
    worker may write it, and send it, chunk by chunk while it is read.
    """

    shard: Shard
    selection: Selection = Selection()
    offset: int = 0
    limit: int | None = None
    documents: bool = False
    metadatas: bool = False
    uris: bool = False
    embeddings: bool = False
    ids: bool = True
    written: bool = False
    inserted: bytes | None = None
    include: list[Include] | None = None
    in_parts: bool = False
    explain: bool = False


class GetResponse(msgspec.Struct, frozen=True):
    """`inserted` (int64) is parallel to the columns and ascending. So is `written`, the position of the operation that
    changed the record last; but it does not ascend.
    """

    inserted: bytes
    columns: Columns
    position: int
    explanation: Explanation | None = None
    written: bytes | None = None


class QueryRequest(msgspec.Struct, frozen=True, omit_defaults=True):
    """The `k` nearest matching records of each query vector (float32 [n_queries, dimension]). `include` as of a get."""

    shard: Shard
    embeddings: bytes
    n_queries: int
    dimension: int
    k: int
    ef_search: int
    selection: Selection = Selection()
    documents: bool = False
    metadatas: bool = False
    uris: bool = False
    include_embeddings: bool = False
    include: list[Include] | None = None
    explain: bool = False


class QueryResponse(msgspec.Struct, frozen=True):
    """Hits of all queries end to end, `counts[i]` of them for query i, nearest first.

    `distances` (float32) and `inserted` (int64, breaks ties) are parallel to the columns.
    """

    counts: list[int]
    distances: bytes
    inserted: bytes
    columns: Columns
    position: int
    explanation: Explanation | None = None
