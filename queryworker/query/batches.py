"""Which queries are answered as one. Pure."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import Final

from shared.records.selection import EVERYTHING, Selection
from shared.records.where import All, AnyOf, ArrayContains, MetadataCompare, MetadataIn, Where
from shared.rpc.messages import QueryRequest

VECTORS_MAX: Final = 8
"""Query vectors in one batch, unless a single request has more: the first answer waits for the last."""

FILTERED_MAX: Final = 4
"""Query vectors in one batch of filtered queries. Each filter is searched for by itself, only the answers are made
together: so a few save most of what there is to be saved.
"""

LIGHT_VALUES_MAX: Final = 64
"""A filter that compares metadata with so many values at most is evaluated in less time than the search takes."""


def batches(requests: Sequence[QueryRequest]) -> list[list[int]]:
    """Numbers of the requests of one shard that go together: those without a selection that differ in their vectors
    alone, and those with light filters that differ in these and their vectors, of which each batch has half at most so
    that threads share them. All others are by themselves.
    """
    made: list[list[int]] = []
    filling: dict[Hashable, tuple[list[int], int]] = {}
    filtered = [_has_light_filter(request.selection) for request in requests]
    filtered_max = min(FILTERED_MAX, sum(filtered) // 2)
    for number, request in enumerate(requests):
        if request.explain or not (filtered[number] or request.selection == EVERYTHING):
            made.append([number])
            continue
        kind = (filtered[number], _kind(request))
        batch, vectors = filling.get(kind, ([], 0))
        if not batch or vectors + request.n_queries > (filtered_max if filtered[number] else VECTORS_MAX):
            batch, vectors = [], 0
            made.append(batch)
        batch.append(number)
        filling[kind] = (batch, vectors + request.n_queries)
    return made


def _has_light_filter(selection: Selection) -> bool:
    return selection.ids is None and selection.where is not None and _values(selection.where) <= LIGHT_VALUES_MAX


def _values(where: Where) -> int:
    """With how many values a filter compares metadata; more than are light where it looks at anything else."""
    match where:
        case MetadataCompare() | ArrayContains():
            return 1
        case MetadataIn():
            return len(where.values)
        case All() | AnyOf():
            return sum(map(_values, where.clauses))
        case _:
            return LIGHT_VALUES_MAX + 1


def _kind(request: QueryRequest) -> Hashable:
    return (
        request.k,
        request.ef_search,
        request.dimension,
        request.documents,
        request.metadatas,
        request.uris,
        request.include_embeddings,
        None if request.include is None else tuple(request.include),
    )
