"""One search of a request, checked, and with nothing left that needs the collection's row."""

from __future__ import annotations

from typing import Final, Literal

import msgspec

from shared.records.model import ReadLevel
from shared.records.where import Where
from shared.search.expression import Expression

DOCUMENT: Final = "#document"
EMBEDDING: Final = "#embedding"
METADATA: Final = "#metadata"
SCORE: Final = "#score"


class Dense(msgspec.Struct, frozen=True, tag_field="t", tag="dense"):
    """A vector (float32), compared with the embeddings in the collection's space."""

    vector: bytes
    ef_search: int


class Sparse(msgspec.Struct, frozen=True, tag_field="t", tag="sparse"):
    """A sparse vector (uint32 and float32), compared with those at a metadata key. `bm25`: its values are still to be
    multiplied by the rarity of their indices.
    """

    key: str
    indices: bytes
    values: bytes
    bm25: bool = False


class Knn(msgspec.Struct, frozen=True):
    """What a `$knn` looks for: the `limit` nearest of the matching records, none further than `max_distance`."""

    query: Dense | Sparse
    limit: int
    max_distance: float | None = None


class GroupBy(msgspec.Struct, frozen=True):
    """Groups by `keys`; each keeps its `k` least (`greatest`: greatest) by `by` in turn: metadata or `#score`."""

    keys: list[str]
    by: list[str]
    k: int
    greatest: bool


class OrderKey(msgspec.Struct, frozen=True):
    """One step of `order_by`: a metadata field and a direction."""

    key: str
    direction: Literal["asc", "desc"] = "asc"


class Facets(msgspec.Struct, frozen=True):
    """The fields whose values are counted, and how many values are named of each."""

    keys: list[str]
    limit: int


class Search(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True):
    """Which records, in which order, which page of them and which columns."""

    where: Where | None = None
    rank: Expression | None = None
    knns: list[Knn] = []
    group_by: GroupBy | None = None
    order_by: list[OrderKey] = []
    offset: int = 0
    limit: int | None = None
    select: list[str] = []
    facets: Facets | None = None
    count: bool = False


class Searches(msgspec.Struct, frozen=True):
    """A whole request."""

    searches: list[Search]
    read_level: ReadLevel
