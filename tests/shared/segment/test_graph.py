"""Search by graph: bounded, unbroken by strange vectors, extensible."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import msgspec
import numpy as np
import pytest

from shared.errors import Corrupt
from shared.limits import GRAPH_NEIGHBORS_MAX, GRAPH_ROWS_MIN
from shared.segment.format import GRAPH
from shared.segment.graph import Graph, GraphParams, build_graph
from shared.segment.graph_vectors import graph_vectors
from shared.segment.reader import Segment
from shared.vectors.arrays import Vectors
from shared.vectors.distance import nearest_many
from shared.vectors.space import Space
from tests.mounts import Mount, mount
from tests.shared.segment.tables import build, params, table, vectors_of

__all__ = ["mount"]

ROWS = GRAPH_ROWS_MIN + 500


def _recall(segment: Segment, queries: Vectors, k: int = 10) -> float:
    exact = nearest_many(segment.info.space, queries, segment.vectors, k)
    found = segment.search(queries, k)
    hits = [len(set(rows.tolist()) & set(best.rows.tolist())) for rows, best in zip(found, exact, strict=True)]
    return sum(hits) / (k * len(queries))


@pytest.mark.parametrize("space", Space)
def test_a_graph_finds_what_a_scan_finds(tmp_path: Path, space: Space) -> None:
    _, segment = build(tmp_path / "s", table(vectors_of(ROWS, 16)), space)
    assert _recall(segment, vectors_of(100, 16, seed=5)) >= 0.97


@pytest.mark.parametrize("space", Space)
def test_zero_huge_and_tiny_vectors_do_not_break_the_graph(tmp_path: Path, space: Space) -> None:
    vectors = vectors_of(ROWS, 16)
    vectors[10:20] = 0.0
    vectors[20:30] *= np.float32(5e37)
    vectors[30:40] *= np.float32(1e-40)
    _, segment = build(tmp_path / "s", table(vectors), space)
    with np.errstate(all="raise"):
        strange = segment.search(vectors[10:40], 10)
    assert all(len(set(rows.tolist())) == 10 for rows in strange)
    found = segment.search(vectors_of(50, 16, seed=5), ROWS)
    assert all(sorted(rows.tolist()) == list(range(ROWS)) for rows in found)
    # By inner product the huge ones are everyone's nearest or furthest; the others must still find each other.
    if space is not Space.IP:
        assert _recall(segment, vectors_of(100, 16, seed=5)) >= 0.97


@pytest.mark.parametrize("space", Space)
def test_graph_vectors_are_finite_and_their_products_too(space: Space) -> None:
    vectors = np.array([[3e38, 3e38], [-3e38, 3e38], [0, 0], [1e-45, 0], [1, 2]], dtype=np.float32)
    held = graph_vectors(space, vectors)
    assert np.isfinite(held @ held.T).all()
    assert held[2].tolist() == [0.0, 0.0]
    if space is not Space.COSINE:
        assert np.array_equal(held[2:], vectors[2:])
        assert graph_vectors(space, vectors[2:]) is not vectors
        assert np.shares_memory(graph_vectors(space, vectors[2:]), vectors)
    else:
        assert np.linalg.norm(held[[0, 1, 3, 4]], axis=1) == pytest.approx([1.0] * 4)


@pytest.mark.parametrize("space", Space)
def test_an_extended_graph_finds_old_and_new_rows(tmp_path: Path, space: Space) -> None:
    vectors = vectors_of(ROWS + 1000, 16)
    build(tmp_path / "old", table(vectors[:ROWS]), space)
    before = (tmp_path / "old" / GRAPH).read_bytes()
    _, segment = build(tmp_path / "new", table(vectors), space, prior_graph=tmp_path / "old" / GRAPH)
    assert _recall(segment, vectors_of(100, 16, seed=5)) >= 0.97
    if space is not Space.IP:  # where a vector need not be nearest to itself
        assert [rows[0] for rows in segment.search(vectors[-50:], 1)] == list(range(ROWS + 950, ROWS + 1000))
    assert (tmp_path / "old" / GRAPH).read_bytes() == before


def test_a_base_graph_with_more_rows_than_the_segment_is_refused(tmp_path: Path) -> None:
    vectors = vectors_of(ROWS, 4)
    build_graph(tmp_path / "g", vectors, params())
    with pytest.raises(ValueError, match="prior graph"):
        build_graph(tmp_path / "h", vectors[:-1], params(), tmp_path / "g")


def test_a_graph_of_another_number_of_rows_is_corrupt(tmp_path: Path) -> None:
    info, _ = build(tmp_path / "s", table(vectors_of(ROWS, 4)))
    with pytest.raises(Corrupt):
        Graph.open(tmp_path / "s" / GRAPH, msgspec.structs.replace(info, rows=ROWS + 1), 100)


def test_a_graph_says_when_it_does_not_reach_as_many_as_asked(tmp_path: Path) -> None:
    """Two far clusters and two links a row: the second cluster is out of reach, and still everything is found."""
    vectors = vectors_of(ROWS, 2)
    vectors[ROWS // 2 :] += np.float32(1e6)
    info, segment = build(tmp_path / "s", table(vectors))
    build_graph(tmp_path / "g", vectors, GraphParams(Space.L2, 2, 2, 1))
    assert Graph.open(tmp_path / "g", info, 1).search(vectors[:1], ROWS) == [None]
    assert sorted(segment.search(vectors[:1], ROWS)[0].tolist()) == list(range(ROWS))


def test_a_graph_that_came_back_short_is_followed_by_a_scan(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _, segment = build(tmp_path / "s", table(vectors_of(ROWS, 3)))
    monkeypatch.setattr(Graph, "search", lambda _, queries, *__: [None] * len(queries))
    exact = nearest_many(Space.L2, segment.vectors[:5], segment.vectors, 7)
    for rows, best in zip(segment.search(segment.vectors[:5], 7), exact, strict=True):
        assert rows.tolist() == best.rows.tolist()


@pytest.mark.parametrize("k", [0, 1, 100, ROWS + 1])
def test_the_answer_has_min_of_k_and_rows(tmp_path: Path, k: int) -> None:
    _, segment = build(tmp_path / "s", table(vectors_of(ROWS, 3)))
    found = segment.search(segment.vectors[:2], k)
    assert [len(set(rows.tolist())) for rows in found] == [min(k, ROWS)] * 2
    assert segment.search(segment.vectors[:0], k) == []


def test_a_small_segment_is_scanned_exactly(tmp_path: Path) -> None:
    _, segment = build(tmp_path / "s", table(vectors_of(50, 3)))
    exact = nearest_many(Space.L2, segment.vectors[:5], segment.vectors, 7)
    for rows, best in zip(segment.search(segment.vectors[:5], 7), exact, strict=True):
        assert rows.tolist() == best.rows.tolist()


def test_a_closed_segment_scans(tmp_path: Path) -> None:
    _, segment = build(tmp_path / "s", table(vectors_of(ROWS, 3)))
    segment.close()
    assert segment.search(segment.vectors[5:6], 1)[0].tolist() == [5]


@pytest.mark.parametrize(("neighbors", "ef"), [(1, 100), (GRAPH_NEIGHBORS_MAX + 1, 100), (16, 0), (16, 10**9)])
def test_parameters_that_would_break_hnswlib_are_refused(neighbors: int, ef: int) -> None:
    with pytest.raises(ValueError, match=r"neighbours|ef_construction"):
        GraphParams(Space.L2, ef, neighbors, 1)


def test_many_threads_search_one_graph_at_once(tmp_path: Path) -> None:
    _, segment = build(tmp_path / "s", table(vectors_of(ROWS, 16)))
    queries = vectors_of(64, 16, seed=9)
    beams = [10, 200, 50, 500]
    alone = [[rows.tolist() for rows in segment.search(queries, beam)] for beam in beams]
    with ThreadPoolExecutor(8) as pool:
        together = list(pool.map(lambda beam: segment.search(queries, beam), beams * 8))
    assert [[rows.tolist() for rows in found] for found in together] == alone * 8


@pytest.mark.parametrize("space", Space)
def test_a_graph_in_memory_is_extended_on_a_copy(space: Space) -> None:
    vectors, queries = vectors_of(1200, 16), vectors_of(50, 16, seed=5)
    first = Graph.of(vectors[:500], GraphParams(space, 100, 16, threads=1), 1200)
    before = first.search(queries, 10)
    second = first.extended(vectors[500:900], threads=1)
    third = second.extended(vectors[900:], threads=1)
    assert (first.rows, second.rows, third.rows) == (500, 900, 1200)
    again = first.search(queries, 10)
    for one, other in zip(before, again, strict=True):
        assert one is not None
        assert other is not None
        assert np.array_equal(one, other)
    found = third.search(queries, 100)
    assert found is not None
    exact = nearest_many(space, queries, vectors, 10)
    hits = 0
    for rows, best in zip(found, exact, strict=True):
        assert rows is not None
        hits += len(set(rows[:10].tolist()) & set(best.rows.tolist()))
    assert hits / 500 >= 0.97


def test_a_graph_that_finds_no_room_is_an_error_and_not_half_a_graph(tmp_path: Path, mount: Mount) -> None:
    """The library writes what fits, and says nothing."""
    vectors = np.random.default_rng(3).standard_normal((5000, 64), np.float32)
    with pytest.raises(OSError, match="No space left on device"):
        build_graph(mount(tmp_path / "volume", 1) / "g", vectors, params())
