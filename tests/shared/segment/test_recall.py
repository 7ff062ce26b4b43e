"""Approximate search on real text embeddings, measured against the exact scan."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from deploy import real_data
from shared.vectors.arrays import Vectors
from shared.vectors.distance import distances, nearest_many
from shared.vectors.space import Space
from tests.missing import needs_real_data
from tests.shared.segment.tables import build, table

ROWS, QUERIES, K, BEAM = 10_000, 300, 10, 100


def _embeddings(path: Path, rows: int) -> Vectors:
    column = pq.read_table(path, columns=["embedding"]).column("embedding").combine_chunks()
    flat = column.flatten().to_numpy(zero_copy_only=False)
    matrix: Vectors = flat.reshape(len(column), -1)[:rows].astype(np.float32)
    return matrix


@pytest.mark.parametrize("space", Space)
def test_recall_at_10_on_real_embeddings(tmp_path: Path, space: Space) -> None:
    needs_real_data()
    vectors = _embeddings(real_data.PACKAGES, ROWS)
    queries = _embeddings(real_data.QUERIES, QUERIES)
    old, half = tmp_path / "old", ROWS * 3 // 4
    build(old, table(vectors[:half]), space)
    _, whole = build(tmp_path / "whole", table(vectors), space, prior_graph=old / "graph.hnsw")
    exact = nearest_many(space, queries, vectors, K, norms=whole.norms)
    found = whole.search(queries, BEAM)
    hits = 0
    for query, rows, best in zip(queries, found, exact, strict=True):
        mine = rows[np.argsort(distances(space, query, vectors[rows]))[:K]]
        hits += len(set(mine.tolist()) & set(best.rows.tolist()))
    assert hits / (K * QUERIES) >= 0.97
