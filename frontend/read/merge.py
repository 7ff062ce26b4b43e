"""What several shards answered, as if one had. Pure.

Every live record is in exactly one shard, so merging is sorting: by the position of insertion for a get, by distance
and then that position for a query.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

from shared.records.columns import Columns
from shared.rpc.messages import GetResponse, QueryResponse
from shared.vectors.arrays import Distances, Indices, Positions

Value = TypeVar("Value")


@dataclass(frozen=True, slots=True)
class Hits:
    """Hits of all queries end to end, `counts[i]` of them for query i, nearest first; the rest is parallel."""

    counts: list[int]
    distances: Distances
    columns: Columns


def positions(data: bytes) -> Positions:
    return np.frombuffer(data, dtype="<i8")


def page_of(inserted: Sequence[Positions], offset: int, limit: int | None) -> list[Positions]:
    """Which of each shard's positions are on the page: `offset` skipped of all in order, then at most `limit`."""
    order = _slice(np.argsort(np.concatenate(inserted), kind="stable"), offset, limit)
    chosen = np.zeros(sum(map(len, inserted)), dtype=bool)
    chosen[order] = True
    bounds = np.cumsum([len(part) for part in inserted])[:-1]
    return [part[mask] for part, mask in zip(inserted, np.split(chosen, bounds), strict=True)]


def merge_get(answers: Sequence[GetResponse], offset: int = 0, limit: int | None = None) -> Columns:
    """The rows of all answers by insertion, `offset` of them skipped, at most `limit`."""
    inserted = np.concatenate([positions(answer.inserted) for answer in answers])
    order = _slice(np.argsort(inserted, kind="stable"), offset, limit)
    return _take([answer.columns for answer in answers], order)


def merge_query(answers: Sequence[QueryResponse], k: int) -> Hits:
    """The `k` nearest of all answers, per query."""
    if len(answers) == 1:
        (only,) = answers
        return Hits(only.counts, np.frombuffer(only.distances, dtype="<f4"), only.columns)
    query = np.concatenate([np.repeat(np.arange(len(answer.counts)), answer.counts) for answer in answers])
    distances = np.concatenate([np.frombuffer(answer.distances, dtype="<f4") for answer in answers])
    inserted = np.concatenate([positions(answer.inserted) for answer in answers])
    order = np.lexsort((inserted, distances, query))
    found = np.bincount(query, minlength=len(answers[0].counts))
    starts = np.cumsum(found) - found
    place = np.arange(len(order)) - np.repeat(starts, found)
    order = order[place < k]
    columns = _take([answer.columns for answer in answers], order)
    return Hits(np.minimum(found, k).tolist(), distances[order], columns)


def _slice(order: Indices, offset: int, limit: int | None) -> Indices:
    return order[offset:] if limit is None else order[offset : offset + limit]


def _take(parts: Sequence[Columns], order: Indices) -> Columns:
    """Rows `order` of the parts laid end to end."""
    rows = order.tolist()
    return Columns(
        ids=_pick([part.ids for part in parts], rows),
        documents=_pick_optional(parts, rows, lambda part: part.documents),
        metadatas=_pick_optional(parts, rows, lambda part: part.metadatas),
        uris=_pick_optional(parts, rows, lambda part: part.uris),
        embeddings=_take_embeddings(parts, order),
        dimension=max(part.dimension for part in parts),
    )


def _pick(columns: Sequence[Sequence[Value]], rows: list[int]) -> list[Value]:
    joined = [value for column in columns for value in column]
    return list(map(joined.__getitem__, rows)) if joined else []


def _pick_optional(
    parts: Sequence[Columns], rows: list[int], column: Callable[[Columns], list[str | None] | None]
) -> list[str | None] | None:
    columns = [values for part in parts if (values := column(part)) is not None]
    return _pick(columns, rows) if len(columns) == len(parts) else None


def _take_embeddings(parts: Sequence[Columns], order: Indices) -> bytes | None:
    if any(part.embeddings is None for part in parts):
        return None
    matrices = [
        np.frombuffer(part.embeddings, dtype="<f4").reshape(len(part.ids), -1)
        for part in parts
        if part.embeddings  # a shard without rows need not know the width
    ]
    return np.concatenate(matrices)[order].tobytes() if matrices else b""
