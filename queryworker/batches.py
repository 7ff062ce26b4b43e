"""Which queries are answered as one. Pure."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import Final

from shared.rpc.messages import EVERYTHING, QueryRequest

VECTORS_MAX: Final = 8
"""Query vectors in one batch, unless a single request has more: the first answer waits for the last."""


def batches(requests: Sequence[QueryRequest]) -> list[list[int]]:
    """Numbers of the requests of one shard that go together: those without a selection or an explanation that
    differ in their vectors alone. All others are by themselves.
    """
    made: list[list[int]] = []
    filling: dict[Hashable, tuple[list[int], int]] = {}
    for number, request in enumerate(requests):
        if request.selection != EVERYTHING or request.explain:
            made.append([number])
            continue
        kind = _kind(request)
        batch, vectors = filling.get(kind, ([], 0))
        if not batch or vectors + request.n_queries > VECTORS_MAX:
            batch, vectors = [], 0
            made.append(batch)
        batch.append(number)
        filling[kind] = (batch, vectors + request.n_queries)
    return made


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
