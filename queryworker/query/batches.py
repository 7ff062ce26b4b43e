"""The division of queries that came together into batches, each answered as one. Pure."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import Final

from shared.records.selection import EVERYTHING, Selection
from shared.records.where import All, AnyOf, ArrayContains, MetadataCompare, MetadataIn, Where
from shared.rpc.messages import QueryRequest

VECTORS_MAX: Final = 8
"""Most query vectors in one batch, unless a single request has more: the first answer waits for the last."""

FILTERED_VECTORS_MAX: Final = 4
"""Most query vectors in one batch of filtered queries. Each filter is searched for by itself, only the answers are made
together: so a few save most of what there is to be saved.
"""

CHEAP_FILTER_VALUES_MAX: Final = 64
"""A filter that compares metadata with at most so many values is evaluated in less time than the search takes."""


def batches(requests: Sequence[QueryRequest]) -> list[list[int]]:
    """The numbers of the requests in each batch; each request is in one batch. The requests are of one shard.

    Requests without a selection that differ in their vectors alone go together, and so do those with cheap filters that
    differ in these and their vectors; of the latter a batch has at most half, so that several threads share them. Every
    other request is a batch by itself.
    """
    made: list[list[int]] = []
    filling: dict[Hashable, tuple[list[int], int]] = {}
    filtered = [_has_cheap_filter(request.selection) for request in requests]
    filtered_max = min(FILTERED_VECTORS_MAX, sum(filtered) // 2)
    for number, request in enumerate(requests):
        if request.explain or not (filtered[number] or request.selection == EVERYTHING):
            made.append([number])
            continue
        key = (filtered[number], _batch_key(request))
        batch, vectors = filling.get(key, ([], 0))
        if not batch or vectors + request.n_queries > (filtered_max if filtered[number] else VECTORS_MAX):
            batch, vectors = [], 0
            made.append(batch)
        batch.append(number)
        filling[key] = (batch, vectors + request.n_queries)
    return made


def _has_cheap_filter(selection: Selection) -> bool:
    if selection.ids is not None or selection.where is None:
        return False
    return _compared_values(selection.where) <= CHEAP_FILTER_VALUES_MAX


def _compared_values(where: Where) -> int:
    """With how many values a filter compares metadata; more than a cheap filter has where it looks at anything else."""
    match where:
        case MetadataCompare() | ArrayContains():
            return 1
        case MetadataIn():
            return len(where.values)
        case All() | AnyOf():
            return sum(map(_compared_values, where.clauses))
        case _:
            return CHEAP_FILTER_VALUES_MAX + 1


def _batch_key(request: QueryRequest) -> Hashable:
    """The fields that requests of one batch have in common."""
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
