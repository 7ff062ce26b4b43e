"""A tail that has grown is searched by graphs, which stay right however it grows, dies and moves to a later base."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from pyroaring import BitMap

from queryworker.query import knn
from queryworker.view import tail_graphs
from queryworker.view.read_view import ReadView
from queryworker.view.shard_view import OpenManifest, ShardView
from shared.cluster.placement import Layout
from shared.log.batch import build_batch, split_batch
from shared.log.state import Entry, Pointer
from shared.records.model import Op, record_schema
from shared.records.selection import Selection
from shared.rpc import messages
from shared.segment.graph import GraphParams
from shared.segment.reader import open_segment
from shared.segment.segment_set import SegmentSet
from shared.segment.writer import write_segment
from shared.vectors.distance import nearest
from shared.vectors.space import Space

DIMENSION, QUERIES = 16, 40
STEP, GRAPH, FROM_MIDDLE = 2500, 5000, 18_000
PARAMS = GraphParams(Space.L2, ef_construction=100, max_neighbors=16, threads=1)
VECTORS = np.random.default_rng(1).standard_normal((20_000, DIMENSION)).astype(np.float32)


@pytest.fixture(autouse=True)
def _small_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tail_graphs, "STEP_ROWS", STEP)
    monkeypatch.setattr(tail_graphs, "GRAPH_ROWS_MAX", GRAPH)
    monkeypatch.setattr(tail_graphs, "FROM_MIDDLE_ROWS_MIN", FROM_MIDDLE)


def _empty() -> ShardView:
    return ShardView(OpenManifest(None, SegmentSet([], []), None, PARAMS, 0))


def _write(view: ShardView, op: Op, rows: range) -> None:
    """One append; row n has the id `r<n>` and the n-th vector."""
    ids = [f"r{n}" for n in rows]
    (entries,) = split_batch(
        build_batch(op, ids, None if op is Op.DELETE else VECTORS[rows.start : rows.stop]), Layout(0, 1)
    ).values()
    head = view.position + len(rows)
    view.apply([Entry("a", "b", view.position, head, True, e.count, e.payload) for e in entries])
    view.position = head


def _index_all(view: ShardView) -> None:
    while view.graph_step_due:
        view.build_graph_step()


def _recall(view: ReadView, alive: np.ndarray) -> float:
    queries = np.random.default_rng(2).standard_normal((QUERIES, DIMENSION)).astype(np.float32)
    wanted = messages.QueryRequest(messages.Shard("c"), queries.tobytes(), QUERIES, DIMENSION, 10, 100, Selection())
    answer = knn.query_nearest(view, wanted)
    assert answer.counts == [10] * QUERIES
    found = np.frombuffer(answer.inserted, "<i8").reshape(QUERIES, -1) - 1  # rows are inserted in order, from 1
    best = [set(alive[nearest(Space.L2, query, VECTORS[alive], 10).rows].tolist()) for query in queries]
    return sum(len(some & set(row.tolist())) for some, row in zip(best, found, strict=True)) / found.size


def _segment(directory: Path, rows: int) -> SegmentSet:
    table = pa.table(
        {
            "id": [f"r{n}" for n in range(rows)],
            "inserted": np.arange(1, rows + 1),
            "written": np.arange(1, rows + 1),
            "digest": [bytes(16)] * rows,
            "embedding": pa.FixedSizeListArray.from_arrays(pa.array(VECTORS[:rows].ravel()), DIMENSION),
            "document": pa.nulls(rows, pa.large_string()),
            "metadata": pa.nulls(rows, pa.large_string()),
            "uri": pa.nulls(rows, pa.large_string()),
        },
        schema=record_schema(DIMENSION),
    )
    info = write_segment(directory, "s", "c/0/segments/s", table, PARAMS).info
    return SegmentSet([open_segment(directory, info, 1)], [BitMap()])


def test_a_grown_tail_is_searched_by_graphs_and_finds_what_a_scan_finds() -> None:
    view = _empty()
    _write(view, Op.ADD, range(STEP - 1))
    assert not view.graph_step_due
    _write(view, Op.ADD, range(STEP - 1, 13_000))
    before = view.read_view()
    _index_all(view)
    after = view.read_view()
    assert [part.graph is not None for part in before.parts] == [False]
    assert [(part.rows, part.graph is not None) for part in after.parts] == [(GRAPH, True)] * 2 + [
        (STEP, True),
        (500, False),
    ]
    assert _recall(before, np.arange(13_000)) == 1.0
    assert _recall(after, np.arange(13_000)) >= 0.97


def test_a_long_tail_is_indexed_from_its_middle_since_its_beginning_is_compacted_meanwhile() -> None:
    view = _empty()
    _write(view, Op.ADD, range(FROM_MIDDLE))
    _index_all(view)
    parts = [(part.rows, part.graph is not None) for part in view.read_view().parts]
    assert parts == [(FROM_MIDDLE // 2, False), (GRAPH, True), (STEP, True), (1500, False)]
    _write(view, Op.ADD, range(FROM_MIDDLE, 20_000))
    _index_all(view)
    parts = [(part.rows, part.graph is not None) for part in view.read_view().parts]
    assert parts == [(FROM_MIDDLE // 2, False), (GRAPH, True), (GRAPH, True), (1000, False)]
    assert _recall(view.read_view(), np.arange(20_000)) >= 0.97


def test_older_reads_and_dead_rows_are_right_over_the_graphs_of_a_newer_tail() -> None:
    view = _empty()
    _write(view, Op.ADD, range(8_000))
    _write(view, Op.ADD, range(8_000, 16_000))
    _write(view, Op.DELETE, range(2_000, 7_000))
    _index_all(view)
    alive = np.setdiff1d(np.arange(16_000), np.arange(2_000, 7_000))
    assert _recall(view.read_view(), alive) >= 0.97
    assert _recall(view.read_view(8_001), np.arange(8_000)) >= 0.97
    ids = [f"r{n}" for n in (0, 3_000, 7_999, 12_600, 15_999)]
    found = view.read_view().find(ids)
    starts = view.read_view().tail_starts
    assert sorted(int(row) + start for rows, start in zip(found, starts, strict=True) for row in rows) == [
        0,
        7_999,
        12_600,
        15_999,
    ]


def test_a_view_over_a_later_base_goes_on_with_the_graphs_and_indexes_nothing_again(tmp_path: Path) -> None:
    old = _empty()
    _write(old, Op.ADD, range(16_000))
    _index_all(old)
    indexed = old.graphs.graphs
    base = OpenManifest(Pointer(1, "x", 6_001), _segment(tmp_path / "s", 6_000), DIMENSION, PARAMS, 0)
    assert old.can_continue(base)
    before = old.read_view()
    view = ShardView(base, old)
    assert view.memtable.rows == 10_000
    assert view.graphs.graphs == indexed[1:]
    assert not view.graph_step_due
    assert [part.rows for part in view.read_view().parts] == [6_000, 4_000, 5_000, 1_000]
    _write(view, Op.ADD, range(16_000, 20_000))
    _write(view, Op.DELETE, range(100))
    _index_all(view)
    alive = np.arange(100, 20_000)
    assert _recall(view.read_view(), alive) >= 0.97
    assert _recall(before, np.arange(16_000)) >= 0.97
    assert _recall(old.read_view(), np.arange(16_000)) >= 0.97  # the graph of its first rows is gone: they are scanned
    assert len({ordinal for graph in view.graphs.graphs for ordinal in range(graph.start, graph.stop)}) == 15_000


def test_a_view_that_the_log_does_not_continue_is_not_gone_on_with(tmp_path: Path) -> None:
    old = _empty()
    _write(old, Op.ADD, range(10))
    later = OpenManifest(Pointer(1, "x", 12), SegmentSet([], []), DIMENSION, PARAMS, 0)
    assert not old.can_continue(later)
    within = OpenManifest(Pointer(1, "x", 6), SegmentSet([], []), DIMENSION, PARAMS, 0)
    assert old.can_continue(within)
    old.broken = True
    assert not old.can_continue(within)
