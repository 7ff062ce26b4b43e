from __future__ import annotations

from typing import Any

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from frontend.read.merge import merge_get, merge_query, page_of, positions
from shared.records.columns import Columns
from shared.rpc.messages import GetResponse, QueryResponse

DIMENSION = 2


def get_answer(inserted: list[int], **columns: Any) -> GetResponse:
    rows = np.array(inserted, dtype="<i8")
    vectors = np.stack([rows, -rows], axis=1).astype("<f4")
    return GetResponse(
        inserted=rows.tobytes(),
        columns=Columns(
            ids=[f"id{position}" for position in inserted],
            documents=[f"d{position}" if position % 2 else None for position in inserted],
            embeddings=vectors.tobytes(),
            dimension=DIMENSION,
            **columns,
        ),
        position=1000,
    )


_shards = st.lists(st.integers(1, 60), unique=True, max_size=30).flatmap(
    lambda found: st.lists(st.integers(0, 2), min_size=len(found), max_size=len(found)).map(
        lambda homes: [
            sorted(position for position, home in zip(found, homes, strict=True) if home == shard) for shard in range(3)
        ]
    )
)


@given(_shards, st.integers(0, 8), st.one_of(st.none(), st.integers(0, 8)))
def test_a_page_of_several_shards_is_the_page_of_their_union(
    shards: list[list[int]], offset: int, limit: int | None
) -> None:
    everything = sorted(position for shard in shards for position in shard)
    expected = everything[offset:] if limit is None else everything[offset : offset + limit]

    merged = merge_get([get_answer(shard) for shard in shards], offset, limit)
    assert merged.ids == [f"id{position}" for position in expected]
    assert merged.documents == [f"d{position}" if position % 2 else None for position in expected]
    assert merged.metadatas is None
    vectors = np.frombuffer(merged.embeddings or b"", dtype="<f4").reshape(-1, DIMENSION)
    assert vectors[:, 0].tolist() == expected

    chosen = page_of([np.array(shard, dtype=np.int64) for shard in shards], offset, limit)
    assert sorted(position for part in chosen for position in part.tolist()) == expected
    assert all(set(part.tolist()) <= set(shard) for part, shard in zip(chosen, shards, strict=True))
    second = merge_get([get_answer(part.tolist()) for part in chosen])
    assert second == merged


def query_answer(hits: list[list[tuple[float, int]]]) -> QueryResponse:
    flat = [hit for one in hits for hit in one]
    return QueryResponse(
        counts=[len(one) for one in hits],
        distances=np.array([distance for distance, _ in flat], dtype="<f4").tobytes(),
        inserted=np.array([position for _, position in flat], dtype="<i8").tobytes(),
        columns=Columns(ids=[str(position) for _, position in flat], metadatas=[None] * len(flat)),
        position=1000,
    )


_distances = st.sampled_from([0.0, 0.5, 1.0, float("inf")])


@given(st.integers(1, 3), st.integers(1, 3), st.integers(0, 5), st.data())
def test_hits_are_merged_by_distance_then_by_insertion(shards: int, queries: int, k: int, data: Any) -> None:
    found: list[list[list[tuple[float, int]]]] = []
    for shard in range(shards):
        per_query = []
        for _ in range(queries):
            positions_of = data.draw(st.lists(st.integers(0, 9), unique=True, max_size=4))
            hits = sorted((data.draw(_distances), position * shards + shard) for position in positions_of)
            per_query.append(hits[:k])
        found.append(per_query)

    merged = merge_query([query_answer(shard) for shard in found], k)

    start = 0
    for query in range(queries):
        expected = sorted(hit for shard in found for hit in shard[query])[:k]
        end = start + merged.counts[query]
        assert merged.columns.ids[start:end] == [str(position) for _, position in expected]
        assert merged.distances[start:end].tolist() == [distance for distance, _ in expected]
        start = end
    assert start == len(merged.columns.ids) == len(merged.distances)


def test_a_hit_without_a_comparable_distance_comes_last() -> None:
    merged = merge_query([query_answer([[(float("nan"), 1)]]), query_answer([[(float("inf"), 2), (3.0, 3)]])], 3)
    assert merged.columns.ids == ["3", "2", "1"]


def test_shards_without_rows_need_not_know_the_width() -> None:
    nothing = GetResponse(inserted=b"", columns=Columns(ids=[], documents=[], embeddings=b""), position=1)
    assert merge_get([nothing, get_answer([7, 9]), nothing]).ids == ["id7", "id9"]
    assert merge_get([nothing, nothing]).embeddings == b""


def test_positions_are_read_without_copying() -> None:
    assert positions(np.arange(3, dtype="<i8").tobytes()).tolist() == [0, 1, 2]
