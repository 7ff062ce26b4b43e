"""Searches as they are executed: checked, and completed by what the collection's row says."""

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
    """A query vector (the bytes of float32 [dimension]), compared with the embeddings in the collection's space."""

    vector: bytes
    ef_search: int


class Sparse(msgspec.Struct, frozen=True, tag_field="t", tag="sparse"):
    """A sparse query vector (the bytes of uint32 [n] and float32 [n]), compared with the sparse vectors at a metadata
    key. `bm25`: its values are still to be multiplied by the inverse document frequency of their indices.
    """

    key: str
    indices: bytes
    values: bytes
    bm25: bool = False


class Knn(msgspec.Struct, frozen=True):
    """A `$knn`: it finds the `limit` nearest of the matching records, none further than `max_distance`."""

    query: Dense | Sparse
    limit: int
    max_distance: float | None = None


class GroupBy(msgspec.Struct, frozen=True):
    """Groups records by the values at `keys`. Each group keeps the `k` records that are least (`greatest`: greatest) by
    the keys `by`, one after the other: metadata fields or `#score`.
    """

    keys: list[str]
    by: list[str]
    k: int
    greatest: bool


class OrderKey(msgspec.Struct, frozen=True):
    """A step of `order_by`: a metadata field and a direction."""

    key: str
    direction: Literal["asc", "desc"] = "asc"


class Facets(msgspec.Struct, frozen=True):
    """The metadata fields whose values are counted, and how many values of each are returned."""

    keys: list[str]
    limit: int


class Search(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True):
    """A search: which records, in which order, which page of them and which columns. Without a rank records are
    ordered by insertion; `limit` None means all.
    """

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
    """A request: any number of searches, at one read level; as of a log position, or (None) as of now."""

    searches: list[Search]
    read_level: ReadLevel
    as_of: int | None = None
    past: bool = False
    """Whether `as_of` may be a position of the past, which the workers have to look for."""
