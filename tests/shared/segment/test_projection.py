"""Guides of fewer dimensions: found where vectors allow it, given up where they do not, never wrong in an answer."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from pyroaring import BitMap

from queryworker.query import knn
from queryworker.view.shard_view import OpenManifest, ShardView
from shared.errors import Corrupt
from shared.log.state import Pointer
from shared.rpc import messages
from shared.segment.format import BASIS, GRAPH, verify
from shared.segment.graph import Graph, build_graph
from shared.segment.projection import (
    DIMENSION_MAX,
    DIMENSION_MIN,
    RECALL_MIN,
    ROWS_PER_DIMENSION_MIN,
    PcaBasis,
    enough_rows,
    find_basis,
    neighbour_recall,
    open_basis,
    project,
    still_serves,
    write_basis,
)
from shared.segment.reader import Segment, open_segment
from shared.segment.segment_set import SegmentSet
from shared.segment.writer import write_segment
from shared.vectors.arrays import Vectors
from shared.vectors.distance import nearest_many
from shared.vectors.space import Space
from tests.shared.segment.tables import params, table, vectors_of

DIMENSION = DIMENSION_MIN
ROWS = ROWS_PER_DIMENSION_MIN * DIMENSION + 1500


def _uneven(rows: int, seed: int = 0, turn: int = 0) -> Vectors:
    """Most of these vectors lies in a third of their directions; other directions with another `turn`."""
    scales = np.geomspace(1.0, 0.02, DIMENSION).astype(np.float32)
    return np.asarray((vectors_of(rows, DIMENSION, seed) * scales) @ _turned(turn), np.float32)


def _turned(turn: int) -> Vectors:
    turned, _ = np.linalg.qr(np.random.default_rng(100 + turn).standard_normal((DIMENSION, DIMENSION)))
    directions: Vectors = turned.astype(np.float32)
    return directions


@pytest.mark.parametrize("space", Space)
def test_vectors_of_few_directions_are_projected_on_fewer_dimensions(space: Space) -> None:
    vectors = _uneven(ROWS)
    basis = find_basis(space, vectors)
    assert 0 < basis.width <= 0.75 * DIMENSION
    assert np.allclose(basis.directions.T @ basis.directions, np.eye(basis.width), atol=1e-5)


@pytest.mark.parametrize("space", Space)
def test_vectors_that_fill_their_space_keep_all_dimensions(space: Space) -> None:
    assert find_basis(space, vectors_of(ROWS, DIMENSION)).width == 0


def test_the_measure_counts_what_a_plain_evaluation_counts() -> None:
    vectors = vectors_of(500, DIMENSION)
    basis = np.ascontiguousarray(np.eye(DIMENSION, dtype=np.float32)[:, : DIMENSION // 2])
    probes = np.array([3, 77, 401])
    hits = 0
    for row in probes:
        apart = np.sum((vectors - vectors[row]) ** 2, axis=1)
        projected = np.sum(((vectors - vectors[row]) @ basis) ** 2, axis=1)
        hits += len(set(np.argsort(apart)[:11].tolist()) & set(np.argsort(projected)[:21].tolist()))
    assert neighbour_recall(Space.L2, vectors, probes, basis) == pytest.approx(hits / 33)


def test_many_equal_rows_count_as_found_whichever_of_them_is() -> None:
    vectors = np.repeat(_uneven(20), 100, axis=0)
    basis = np.ascontiguousarray(np.eye(DIMENSION, dtype=np.float32)[:, :64])
    assert neighbour_recall(Space.L2, vectors, np.arange(0, 2000, 50), basis) == 1.0


def test_zero_and_huge_vectors_do_not_spoil_a_basis() -> None:
    vectors = _uneven(ROWS)
    vectors[:20] = 0.0
    vectors[20:30] *= np.float32(1e36)
    for space in Space:
        with np.errstate(all="raise", under="ignore"):
            basis = find_basis(space, vectors)
        assert np.isfinite(basis.directions).all()


def test_too_few_rows_say_nothing_about_directions() -> None:
    assert not enough_rows(ROWS_PER_DIMENSION_MIN * DIMENSION - 1, DIMENSION)
    assert not enough_rows(10**6, DIMENSION - 1)
    assert not enough_rows(10**6, DIMENSION_MAX + 1)
    assert enough_rows(ROWS, DIMENSION)


def _segment(directory: Path, vectors: Vectors, space: Space = Space.L2, base: Path | None = None) -> Segment:
    prior_graph = None if base is None else base / GRAPH
    written = write_segment(directory, directory.name, "c/0/segments/s", table(vectors), params(space), prior_graph)
    verify(directory, written.info)
    return open_segment(directory, written.info)


def _recall(segment: Segment, queries: Vectors, k: int, ef_search: int = 100) -> float:
    view = ShardView(
        OpenManifest(
            Pointer(1, "x", segment.rows + 1),
            SegmentSet([segment], [BitMap()]),
            DIMENSION,
            params(segment.info.space),
            0,
        )
    )
    request = messages.QueryRequest(messages.Shard("c"), queries.tobytes(), len(queries), DIMENSION, k, ef_search)
    answer = knn.query_nearest(view.read_view(), request)
    rows = np.frombuffer(answer.inserted, "<i8").reshape(len(queries), -1) - 1
    distances = np.frombuffer(answer.distances, "<f4").reshape(len(queries), -1)
    exact = nearest_many(segment.info.space, queries, segment.vectors, k)
    hits = 0
    for mine, apart, best in zip(rows, distances, exact, strict=True):
        assert (np.diff(apart) >= 0).all()
        assert set(apart[np.isin(mine, best.rows)].tolist()) <= set(best.distances.tolist())
        hits += len(set(mine.tolist()) & set(best.rows.tolist()))
    return hits / (k * len(queries))


@pytest.mark.parametrize("k", [1, 10, 100])
def test_a_search_by_projections_finds_as_much_and_answers_exact_distances(tmp_path: Path, k: int) -> None:
    segment = _segment(tmp_path / "s", _uneven(ROWS))
    assert segment.dimension_share < 1
    assert _recall(segment, _uneven(100, seed=5), k) >= 0.98


@pytest.mark.parametrize("space", Space)
def test_queries_of_another_kind_find_as_much_as_without_a_basis(
    tmp_path: Path, space: Space, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They have strong directions of their own, which the rows hardly have, as texts have beside pictures."""
    own = vectors_of(60, DIMENSION, seed=9) * np.linspace(0.02, 1.0, DIMENSION, dtype=np.float32)
    queries = 0.5 * _uneven(60, seed=5) + own @ _turned(0)
    segment = _segment(tmp_path / "projected", _uneven(8000), space)
    assert segment.dimension_share < 1
    assert segment.out_of_distribution(queries).any()
    assert not segment.out_of_distribution(_uneven(200, seed=7)).any()
    monkeypatch.setattr("shared.segment.graph.enough_rows", lambda *_: False)
    whole = _segment(tmp_path / "whole", _uneven(8000), space)
    assert whole.dimension_share == 1
    assert _recall(segment, queries, 10) >= _recall(whole, queries, 10) - 0.01
    assert _recall(segment, queries, 10, ef_search=1000) >= 0.985


def test_an_extended_graph_keeps_its_basis_while_it_serves(tmp_path: Path) -> None:
    vectors = _uneven(ROWS + 1000)
    _segment(tmp_path / "old", vectors[:ROWS])
    before = (tmp_path / "old" / BASIS).read_bytes()
    segment = _segment(tmp_path / "new", vectors, base=tmp_path / "old")
    assert (tmp_path / "new" / BASIS).read_bytes() == before
    assert _recall(segment, _uneven(100, seed=5), 10) >= 0.98
    assert build_graph(tmp_path / "new" / GRAPH, vectors, params(), tmp_path / "old" / GRAPH) == 1000


def test_rows_that_lie_elsewhere_get_another_basis(tmp_path: Path) -> None:
    first, others = _uneven(ROWS), _uneven(1000, turn=1)
    _segment(tmp_path / "old", first)
    basis = open_basis(tmp_path / "old" / BASIS, DIMENSION)
    both = np.concatenate([first, others])
    assert still_serves(Space.L2, np.concatenate([first, _uneven(1000, seed=3)]), ROWS, basis)
    assert not still_serves(Space.L2, both, ROWS, basis)
    segment = _segment(tmp_path / "new", both, base=tmp_path / "old")
    assert _recall(segment, _uneven(100, seed=5, turn=1), 10) >= 0.97
    assert _recall(segment, _uneven(100, seed=5), 10) >= 0.97


def test_batches_that_lie_elsewhere_again_and_again_do_not_build_the_graph_anew_each_time(tmp_path: Path) -> None:
    batches = [_uneven(ROWS), *(_uneven(500, seed=turn, turn=turn) for turn in range(1, 5))]
    inserted, base = [], None
    for number in range(1, len(batches) + 1):
        (tmp_path / str(number)).mkdir()
        path = tmp_path / str(number) / GRAPH
        inserted.append(build_graph(path, np.concatenate(batches[:number]), params(), base))
        base = path
    assert sum(inserted) <= 3 * sum(map(len, batches))
    assert inserted[-2:] == [500, 500]


def test_a_basis_that_fails_when_the_rows_have_doubled_is_replaced(tmp_path: Path) -> None:
    vectors = np.concatenate([_uneven(ROWS), _uneven(2 * ROWS, seed=1, turn=1) * np.float32(0.3)])
    bases: list[Path] = []
    for number, size in enumerate([ROWS, len(vectors)]):
        (tmp_path / str(number)).mkdir()
        build_graph(tmp_path / str(number) / GRAPH, vectors[:size], params(), bases[-1] if bases else None)
        bases.append(tmp_path / str(number) / GRAPH)
    assert (tmp_path / "0" / BASIS).exists()
    assert (tmp_path / "1" / BASIS).read_bytes() != (tmp_path / "0" / BASIS).read_bytes()


def test_a_graph_that_was_made_of_too_few_rows_gets_a_basis_when_there_are_enough(tmp_path: Path) -> None:
    dimension = 2 * DIMENSION
    enough = ROWS_PER_DIMENSION_MIN * dimension
    vectors = np.concatenate([_uneven(enough + 500), np.zeros((enough + 500, DIMENSION), np.float32)], axis=1)
    sizes = [enough - 1, enough - 1, enough + 400, enough + 500]
    bases: list[Path | None] = [None, *(tmp_path / str(number) / GRAPH for number in range(3))]
    inserted = []
    for number, (size, base) in enumerate(zip(sizes, bases, strict=True)):
        (tmp_path / str(number)).mkdir()
        inserted.append(build_graph(tmp_path / str(number) / GRAPH, vectors[:size], params(), base))
    has_basis = [(tmp_path / str(number) / BASIS).exists() for number in range(len(sizes))]
    assert has_basis == [False, False, True, True]
    assert inserted == [enough - 1, 0, enough + 400, 100]


def test_a_basis_of_another_width_than_the_graph_is_corrupt(tmp_path: Path) -> None:
    info = _segment(tmp_path / "s", _uneven(ROWS)).info
    basis = open_basis(tmp_path / "s" / BASIS, DIMENSION)
    write_basis(tmp_path / "s" / BASIS, basis._replace(directions=basis.directions[:, :-16]))
    with pytest.raises(Corrupt, match="dimensions"):
        Graph.open(tmp_path / "s" / GRAPH, info, 100)


@pytest.mark.parametrize("damage", ["cut", "dimension", "magic"])
def test_a_damaged_basis_is_corrupt(tmp_path: Path, damage: str) -> None:
    path = tmp_path / BASIS
    basis = PcaBasis(np.eye(DIMENSION, dtype=np.float32)[:, :64], 12_345, 0.25)
    write_basis(path, basis)
    read = open_basis(path, DIMENSION)
    assert np.array_equal(read.directions, basis.directions)
    assert read[1:] == basis[1:]
    data = bytearray(path.read_bytes())
    if damage == "cut":
        del data[-4:]
    elif damage == "magic":
        data[0] ^= 1
    path.write_bytes(data)
    with pytest.raises(Corrupt):
        open_basis(path, DIMENSION + (damage == "dimension"))


def test_a_share_of_the_dimensions_is_one_that_finds_enough() -> None:
    vectors = _uneven(ROWS)
    basis = find_basis(Space.COSINE, vectors)
    assert neighbour_recall(Space.COSINE, vectors, np.arange(0, ROWS, 37), basis.directions) >= RECALL_MIN - 0.01
    assert project(vectors, None) is vectors
