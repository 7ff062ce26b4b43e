"""The one definition of distance: right to float32, and the same whatever else is in the batch."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.vectors.distance import distances
from shared.vectors.space import Space

FLOAT32_MAX = float(np.finfo(np.float32).max)

_floats = st.floats(width=32, allow_nan=False, allow_infinity=False)


def _reference(space: Space, x: list[float], y: list[float]) -> float:
    products = math.fsum(a * b for a, b in zip(x, y, strict=True))
    if space is Space.L2:
        return math.fsum((a - b) ** 2 for a, b in zip(x, y, strict=True))
    if space is Space.IP:
        return 1.0 - products
    norms = math.sqrt(math.fsum(a * a for a in x)) * math.sqrt(math.fsum(b * b for b in y))
    return 1.0 - products / norms if norms > 0 else 1.0


@pytest.mark.parametrize("space", Space)
@given(data=st.data())
def test_distances_follow_the_definition_for_any_finite_vectors(space: Space, data: st.DataObject) -> None:
    dimension = data.draw(st.integers(1, 6))
    vector = st.lists(_floats, min_size=dimension, max_size=dimension)
    query, rows = data.draw(vector), data.draw(st.lists(vector, min_size=1, max_size=5))
    found = distances(space, np.array(query, dtype=np.float32), np.array(rows, dtype=np.float32))
    assert found.dtype == np.float32
    size = math.fsum(abs(a * b) for row in rows for a, b in zip(query, row, strict=True))
    for row, distance in zip(rows, found.tolist(), strict=True):
        expected = _reference(space, query, row)
        if math.isinf(distance):
            assert abs(expected) > FLOAT32_MAX * (1 - 1e-7)
            assert distance * expected > 0
        else:
            slack = 0.0 if space is Space.COSINE else 1e-15 * size
            assert distance == pytest.approx(expected, rel=1e-6, abs=1e-6 + slack)


@pytest.mark.parametrize("space", Space)
def test_a_vectors_distance_does_not_depend_on_its_neighbours(space: Space) -> None:
    rng = np.random.default_rng(1)
    vectors = rng.standard_normal((700, 61)).astype(np.float32)
    query = vectors[3] + np.float32(0.1)
    whole = distances(space, query, vectors)
    alone = np.array([distances(space, query, vectors[i : i + 1])[0] for i in range(len(vectors))])
    chosen = rng.permutation(len(vectors))[:100]
    assert np.array_equal(whole, alone)
    assert np.array_equal(whole[chosen], distances(space, query, vectors[chosen]))
    assert np.array_equal(whole[5:], distances(space, query, np.asfortranarray(vectors)[5:]))


@pytest.mark.parametrize("space", Space)
@pytest.mark.parametrize("dimension", [1, 7, 61, 384, 1536, 8193, 20_000])
def test_equal_vectors_are_equally_far_wherever_they_stand(space: Space, dimension: int) -> None:
    """They are as far as their query is from itself: what is left of 1 - 1 shows the last bit of each sum."""
    rng = np.random.default_rng(dimension)
    drawn = rng.standard_normal(dimension)
    row = (drawn / np.linalg.norm(drawn)).astype(np.float32)
    alone = distances(space, row, row[None, :])
    for count in (2, 3, 64, 131):
        vectors = rng.standard_normal((count, dimension)).astype(np.float32)
        equal = np.unique(rng.integers(0, count, max(2, count // 2)))
        vectors[equal] = row
        for layout in (vectors, np.asfortranarray(vectors), np.repeat(vectors, 2, axis=1)[:, ::2]):
            assert set(distances(space, row, layout)[equal].tolist()) == set(alone.tolist())


def test_a_zero_vector_is_at_cosine_distance_one() -> None:
    vectors = np.array([[0, 0], [1, 0], [1e-30, 0]], dtype=np.float32)
    assert distances(Space.COSINE, vectors[0], vectors).tolist() == [1.0, 1.0, 1.0]
    assert distances(Space.COSINE, vectors[1], vectors).tolist() == [1.0, 0.0, 0.0]


def test_overflow_is_infinite_and_never_nan() -> None:
    vectors = np.array([[3e38, -3e38], [-3e38, 3e38]], dtype=np.float32)
    assert distances(Space.L2, vectors[0], vectors).tolist() == [0.0, math.inf]
    assert distances(Space.IP, vectors[0], vectors).tolist() == [-math.inf, math.inf]
    assert distances(Space.COSINE, vectors[0], vectors).tolist() == pytest.approx([0.0, 2.0])


def test_no_vectors_have_no_distances() -> None:
    assert distances(Space.L2, np.zeros(3, np.float32), np.empty((0, 3), np.float32)).shape == (0,)
