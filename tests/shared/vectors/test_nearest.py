"""The exact scan finds exactly what sorting all exact distances finds, also where float32 products cannot tell."""

from __future__ import annotations

import numpy as np
import pytest

from shared.vectors.arrays import Vectors
from shared.vectors.distance import distances, nearest, nearest_many, squared_norms
from shared.vectors.space import Space


def _spread(rng: np.random.Generator) -> Vectors:
    return rng.standard_normal((3000, 48)).astype(np.float32)


def _near_duplicates(rng: np.random.Generator) -> Vectors:
    """Differ in the last bits: float32 products order them wrongly."""
    base = rng.standard_normal(48)
    return (base + 1e-6 * rng.standard_normal((3000, 48))).astype(np.float32)


def _far_from_the_origin(rng: np.random.Generator) -> Vectors:
    """Distances are small differences of large products: |x|**2 - 2 x.y + |y|**2 cancels."""
    return (1e5 + rng.standard_normal((3000, 48))).astype(np.float32)


def _any_magnitude(rng: np.random.Generator) -> Vectors:
    """From underflow to overflow of the products, zeros among them."""
    vectors = rng.standard_normal((3000, 48)) * 10.0 ** rng.integers(-44, 38, (3000, 1))
    vectors[::50] = 0.0
    return vectors.astype(np.float32)


def _repeated(rng: np.random.Generator) -> Vectors:
    return np.repeat(rng.standard_normal((30, 48)).astype(np.float32), 100, axis=0)


SHAPES = [_spread, _near_duplicates, _far_from_the_origin, _any_magnitude, _repeated]


def _sorted(space: Space, query: Vectors, vectors: Vectors, rows: np.ndarray, k: int) -> tuple[list[int], list[float]]:
    exact = distances(space, query, vectors[rows])
    order = np.lexsort((rows, exact))[:k]
    return rows[order].tolist(), exact[order].tolist()


@pytest.mark.parametrize("space", Space)
@pytest.mark.parametrize("shape", SHAPES, ids=lambda shape: shape.__name__.strip("_"))
def test_the_scan_equals_sorting_all_exact_distances(space: Space, shape: object) -> None:
    rng = np.random.default_rng(7)
    vectors = shape(rng)  # type: ignore[operator]
    queries = np.concatenate([vectors[[5, 50, 1700]], vectors[:3] * np.float32(0.9), np.zeros((1, 48), np.float32)])
    norms = squared_norms(vectors)
    for chosen in (None, np.arange(0, 3000, 7), np.flatnonzero(rng.random(3000) < 0.8)):
        for k in (1, 10, 250):
            found = nearest_many(space, queries, vectors, k, rows=chosen, norms=norms)
            for query, hits in zip(queries, found, strict=True):
                rows = np.arange(3000) if chosen is None else chosen
                assert (hits.rows.tolist(), hits.distances.tolist()) == _sorted(space, query, vectors, rows, k)


def test_norms_are_an_optional_saving() -> None:
    rng = np.random.default_rng(3)
    vectors = _spread(rng)
    some = np.arange(10, 900)
    for rows in (None, some):
        with_norms = nearest(Space.COSINE, vectors[0], vectors, 9, rows=rows, norms=squared_norms(vectors))
        without = nearest(Space.COSINE, vectors[0], vectors, 9, rows=rows)
        assert with_norms.rows.tolist() == without.rows.tolist()


@pytest.mark.parametrize("space", Space)
def test_asking_for_more_than_there_is_gives_everything_in_order(space: Space) -> None:
    vectors = _spread(np.random.default_rng(0))[:20]
    hits = nearest(space, vectors[4], vectors, 100)
    assert sorted(hits.rows.tolist()) == list(range(20))
    assert (np.diff(hits.distances) >= 0).all()
    few = nearest(space, vectors[4], vectors, 100, rows=np.array([3, 4, 9]))
    assert sorted(few.rows.tolist()) == [3, 4, 9]


def test_equal_distances_come_in_row_order() -> None:
    vectors = np.ones((100, 4), np.float32)
    assert nearest(Space.L2, vectors[0], vectors, 7).rows.tolist() == list(range(7))


@pytest.mark.parametrize(("k", "rows"), [(0, None), (5, np.empty(0, np.int64))])
def test_nothing_asked_or_nothing_there_is_empty(k: int, rows: np.ndarray | None) -> None:
    vectors = np.ones((10, 4), np.float32)
    hits = nearest(Space.L2, vectors[0], vectors, k, rows=rows)
    assert len(hits.rows) == len(hits.distances) == 0


def test_many_queries_are_scanned_in_blocks_with_the_same_result(monkeypatch: pytest.MonkeyPatch) -> None:
    vectors = _spread(np.random.default_rng(2))
    whole = nearest_many(Space.L2, vectors[:30], vectors, 5)
    monkeypatch.setattr("shared.vectors.distance._CHUNK_FLOATS", 1000)
    blocks = nearest_many(Space.L2, vectors[:30], vectors, 5)
    assert [hits.rows.tolist() for hits in whole] == [hits.rows.tolist() for hits in blocks]
