"""The requests of a frontend to a query worker for a search: everything at once where one shard is the whole
collection, else the steps of `shared.search.source.RecordSource`, whose answers it merges.

Encoding, and the meaning of `position`, are those of `shared.rpc.messages`.
"""

from __future__ import annotations

import msgspec

from shared.records.where import Where
from shared.rpc.messages import Shard
from shared.search.model import Knn, OrderKey, Search

Value = bool | int | float | str


class SearchRequest(msgspec.Struct, frozen=True):
    """Searches of the only shard. The answer is the body of the client's answer."""

    shard: Shard
    searches: list[Search]


class NearestRequest(msgspec.Struct, frozen=True):
    """The nearest matching records of each of `knns`, none of which is `bm25`."""

    shard: Shard
    where: Where | None
    knns: list[Knn]


class NearestResponse(msgspec.Struct, frozen=True):
    """Neighbours of all `knns` end to end, `counts[i]` of the i-th, nearest first, equal distances by insertion."""

    counts: list[int]
    distances: bytes
    inserted: bytes
    position: int


class FrequenciesRequest(msgspec.Struct, frozen=True):
    """How many records have each of some indices of sparse vectors: `indices[i]`, uint32, at the key `keys[i]`."""

    shard: Shard
    keys: list[str]
    indices: list[bytes]


class FrequenciesResponse(msgspec.Struct, frozen=True):
    """The number of all records, and `document_frequencies[i]` (int64), the numbers of those that have
    each of `indices[i]`.
    """

    records: int
    document_frequencies: list[bytes] = msgspec.field(name="having")
    position: int


class OrderedRequest(msgspec.Struct, frozen=True):
    """The first `limit` of the matching records as `order_by` says."""

    shard: Shard
    where: Where | None
    order_by: list[OrderKey]
    limit: int | None


class OrderedResponse(msgspec.Struct, frozen=True):
    """The records in order: their positions of insertion (int64), and for each the values that it was sorted by."""

    inserted: bytes
    values: list[list[Value | None]]
    position: int


class TallyRequest(msgspec.Struct, frozen=True):
    """How many records match, and how many of those have each value of each field."""

    shard: Shard
    where: Where | None
    fields: list[str]


class TallyResponse(msgspec.Struct, frozen=True):
    """The number of matching records, and `facets[i]`: the values of the i-th field with the records that have them."""

    count: int
    facets: list[list[tuple[Value, int]]]
    position: int
