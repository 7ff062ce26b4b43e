"""Merges the answers of several shards into the answer that a single shard with all records would have given. Pure.

Every live record is in exactly one shard, so merging is sorting: by the position of insertion for a get, by distance
and then that position for a query.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

from shared.records.columns import Columns
from shared.records.explanation import Explanation
from shared.rpc.messages import GetResponse, QueryResponse
from shared.vectors.arrays import Distances, Indices, Positions

Value = TypeVar("Value")


@dataclass(frozen=True, slots=True)
class Hits:
    """The hits of all queries end to end, `counts[i]` of them for query i, nearest first. `distances`, float32 [hits],
    and the columns are parallel to them.
    """

    counts: list[int]
    distances: Distances
    columns: Columns


def positions(data: bytes) -> Positions:
    """Insertion positions as a response has them, as int64 [rows]."""
    return np.frombuffer(data, dtype="<i8")


def page_of(inserted: Sequence[Positions], offset: int, limit: int | None) -> list[Positions]:
    """Which of each shard's insertion positions, int64 [rows], are on the page: `offset` of all positions in ascending
    order are skipped, then come at most `limit` (None: all).
    """
    order = _slice(np.argsort(np.concatenate(inserted), kind="stable"), offset, limit)
    chosen = np.zeros(sum(map(len, inserted)), dtype=bool)
    chosen[order] = True
    bounds = np.cumsum([len(part) for part in inserted])[:-1]
    return [part[mask] for part, mask in zip(inserted, np.split(chosen, bounds), strict=True)]


def merge_get(answers: Sequence[GetResponse], offset: int = 0, limit: int | None = None) -> Columns:
    """The rows of all answers in the order of insertion, `offset` of them skipped, then at most `limit` (None: all)."""
    inserted = np.concatenate([positions(answer.inserted) for answer in answers])
    order = _slice(np.argsort(inserted, kind="stable"), offset, limit)
    return _take([answer.columns for answer in answers], order)


def merge_query(answers: Sequence[QueryResponse], k: int) -> Hits:
    """The `k` nearest hits of all answers for each query, equal distances by insertion."""
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


def explanations(answers: Sequence[GetResponse] | Sequence[QueryResponse]) -> list[Explanation]:
    """What the workers explain of their answers, where that was asked for."""
    return [answer.explanation for answer in answers if answer.explanation is not None]


def merged_bytes(answers: Sequence[GetResponse] | Sequence[QueryResponse]) -> int:
    """Roughly the bytes that merging handles; a single answer needs none."""
    if len(answers) == 1:
        return 0
    return sum(len(answer.inserted) * 8 + len(answer.columns.embeddings or b"") for answer in answers)


def encoded_bytes(columns: Columns) -> int:
    """Roughly the bytes of the columns once they are JSON."""
    texts = (columns.documents, columns.metadatas)
    return len(columns.ids) * 40 + 3 * len(columns.embeddings or b"") + sum(map(_text_size, texts))


def _text_size(column: Sequence[str | None] | None) -> int:
    return sum(map(len, filter(None, column))) if column else 0


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
