"""Merges the answers of several shards into the answer that a single shard with all records would have given. Pure.

Every live record is in exactly one shard, so merging is sorting: by the position of insertion for a get, by distance
and then that position for a query.
"""

from __future__ import annotations

from collections.abc import Sequence
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
    """The insertion positions of each shard, int64 [rows], that are on the page: `offset` of all positions in ascending
    order are skipped, then come at most `limit` (None: all).
    """
    order = _slice(np.argsort(np.concatenate(inserted), kind="stable"), offset, limit)
    chosen = np.zeros(sum(map(len, inserted)), dtype=bool)
    chosen[order] = True
    bounds = np.cumsum([len(of_shard) for of_shard in inserted])[:-1]
    return [of_shard[mask] for of_shard, mask in zip(inserted, np.split(chosen, bounds), strict=True)]


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
    """The explanations in the workers' answers, where they were asked for."""
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


def _take(shards: Sequence[Columns], order: Indices) -> Columns:
    """Rows `order`, intp [rows], of the columns of all shards laid end to end."""
    rows = order.tolist()
    return Columns(
        ids=_pick([columns.ids for columns in shards], rows),
        documents=_pick_optional([columns.documents for columns in shards], rows),
        metadatas=_pick_optional([columns.metadatas for columns in shards], rows),
        uris=_pick_optional([columns.uris for columns in shards], rows),
        embeddings=_take_embeddings(shards, order),
        dimension=max(columns.dimension for columns in shards),
    )


def _pick(columns: Sequence[Sequence[Value]], rows: list[int]) -> list[Value]:
    joined = [value for column in columns for value in column]
    return list(map(joined.__getitem__, rows)) if joined else []


def _pick_optional(columns: Sequence[list[str | None] | None], rows: list[int]) -> list[str | None] | None:
    """None where the column was not asked for: then no shard has it."""
    present = [column for column in columns if column is not None]
    return _pick(present, rows) if len(present) == len(columns) else None


def _take_embeddings(shards: Sequence[Columns], order: Indices) -> bytes | None:
    if any(columns.embeddings is None for columns in shards):
        return None
    matrices = [
        np.frombuffer(columns.embeddings, dtype="<f4").reshape(len(columns.ids), -1)
        for columns in shards
        if columns.embeddings  # a shard without rows need not know the width
    ]
    return np.concatenate(matrices)[order].tobytes() if matrices else b""
