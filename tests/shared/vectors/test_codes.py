"""Codes exclude rows that are far away, and never one that is near."""

from __future__ import annotations

import numpy as np
import pytest

from shared.vectors.arrays import Vectors
from shared.vectors.codes import Codes, candidates, encode
from shared.vectors.distance import distances, nearest_many
from shared.vectors.space import Space
from tests.shared.vectors.test_nearest import SHAPES


def _queries(vectors: Vectors) -> Vectors:
    return np.concatenate([vectors[[5, 50, 1700]], vectors[:3] * np.float32(0.9), np.zeros((1, 48), np.float32)])


@pytest.mark.parametrize("space", Space)
@pytest.mark.parametrize("shape", SHAPES, ids=lambda shape: shape.__name__.strip("_"))
def test_a_scan_by_codes_finds_what_one_without_finds(space: Space, shape: object) -> None:
    rng = np.random.default_rng(7)
    vectors = shape(rng)  # type: ignore[operator]
    codes, queries = encode(space, vectors), _queries(vectors)
    for rows in (None, np.arange(0, 3000, 7), np.flatnonzero(rng.random(3000) < 0.8)):
        for k in (1, 10, 250):
            found = nearest_many(space, queries, vectors, k, rows=rows, codes=codes)
            plain = nearest_many(space, queries, vectors, k, rows=rows)
            for one, other in zip(found, plain, strict=True):
                assert one.rows.tolist() == other.rows.tolist()
                assert one.distances.tobytes() == other.distances.tobytes()


@pytest.mark.parametrize("space", Space)
def test_little_more_is_left_than_is_wanted(space: Space) -> None:
    rng = np.random.default_rng(1)
    vectors = rng.standard_normal((20_000, 256)).astype(np.float32)
    queries = rng.standard_normal((20, 256)).astype(np.float32)
    rows = np.arange(0, 20_000, 9)
    left = candidates(space, queries, encode(space, vectors), 10, rows)
    for query, some in zip(queries, left, strict=True):
        assert some is not None
        assert len(some) < 200  # of 2,223
        exact = distances(space, query, vectors[rows])
        assert set(rows[np.argsort(exact)[:10]].tolist()) <= set(some.tolist())


@pytest.mark.parametrize("space", Space)
def test_distances_are_within_what_the_terms_say(space: Space) -> None:
    """All lie in a corner of the numbers' range, each differently long: products of codes are at their greatest."""
    rng = np.random.default_rng(2)
    vectors = (rng.uniform(0.9, 1.0, (2000, 2000)) * rng.uniform(1, 1000, (2000, 1))).astype(np.float32)
    query = (vectors[7] + rng.standard_normal(2000)).astype(np.float32)[None, :]
    [hits] = nearest_many(space, query, vectors, 5, codes=encode(space, vectors))
    exact = distances(space, query[0], vectors)
    assert hits.rows.tolist() == np.lexsort((np.arange(2000), exact))[:5].tolist()


def test_shadows_are_as_near_to_their_vectors_as_they_say() -> None:
    rng = np.random.default_rng(3)
    vectors = (rng.standard_normal((500, 40)) * 10.0 ** rng.integers(-30, 15, (500, 1))).astype(np.float32)
    vectors[3] = 0.0
    codes = encode(Space.L2, vectors)
    scales, apart, lengths, squares = codes.terms.astype(np.float64).T
    shadows = codes.numbers * scales[:, None]
    assert (np.linalg.norm(vectors - shadows, axis=1) <= apart).all()
    assert (np.linalg.norm(shadows, axis=1) <= lengths).all()
    assert (apart <= 0.05 * np.linalg.norm(vectors.astype(np.float64), axis=1)).all()
    assert np.allclose(squares, np.square(vectors.astype(np.float64)).sum(axis=1), rtol=1e-6, atol=1e-44)


@pytest.mark.parametrize("space", [Space.L2, Space.IP])
def test_a_row_about_which_nothing_is_said_stays_and_excludes_nothing_of_the_others(space: Space) -> None:
    vectors = np.random.default_rng(5).standard_normal((5000, 32)).astype(np.float32)
    vectors[77] *= np.float32(1e37)
    [left] = candidates(space, vectors[:1], encode(space, vectors), 10)
    assert left is not None
    assert 77 in left
    assert len(left) < 500
    assert set(nearest_many(space, vectors[:1], vectors, 10)[0].rows.tolist()) <= set(left.tolist())


@pytest.mark.parametrize("length", [np.float32(0), np.float32(1e-30), np.float32(1e30)])
def test_queries_of_magnitudes_about_which_nothing_is_said_leave_every_row(length: np.float32) -> None:
    vectors = np.random.default_rng(4).standard_normal((100, 16)).astype(np.float32)
    rows = np.arange(10, 90)
    codes: Codes = encode(Space.L2, vectors)
    assert candidates(Space.L2, vectors[:1] * length, codes, 3, rows) == [None]
    assert candidates(Space.L2, vectors[:1] * length, codes, 3) == [None]
