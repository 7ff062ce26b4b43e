"""Graphs, dead rows and filters together: always min(k, matching) hits, and no fewer of the right ones."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import orjson
import pyarrow as pa
import pytest
from pyroaring import BitMap

from queryworker.query import knn
from queryworker.view.read_view import ReadView
from queryworker.view.shard_view import OpenManifest, ShardView
from shared.cluster.placement import Layout
from shared.log.batch import build_batch, split_batch
from shared.log.state import Entry, Pointer
from shared.records.model import Op, record_schema
from shared.records.selection import Selection
from shared.records.where import Compare, MetadataCompare
from shared.rpc import messages
from shared.segment.reader import Segment, open_segment
from shared.segment.segment_set import SegmentSet
from shared.segment.writer import GraphParams, write_segment
from shared.vectors.distance import nearest
from shared.vectors.space import Space

ROWS, DIMENSION, QUERIES = 6000, 24, 40


@pytest.fixture(scope="module")
def vectors() -> np.ndarray:
    """Two clusters, the second far away: filters on it correlate with the vectors."""
    made = np.random.default_rng(1).standard_normal((ROWS, DIMENSION)).astype(np.float32)
    made[ROWS // 2 :] += 20.0
    return made


@pytest.fixture(scope="module")
def segment(vectors: np.ndarray, tmp_path_factory: pytest.TempPathFactory) -> Segment:
    metadata = [orjson.dumps({"n": i, "far": int(i >= ROWS // 2)}).decode() for i in range(ROWS)]
    table = pa.table(
        {
            "id": [f"r{i}" for i in range(ROWS)],
            "inserted": np.arange(1, ROWS + 1),
            "written": np.arange(1, ROWS + 1),
            "digest": [bytes(16)] * ROWS,
            "embedding": pa.FixedSizeListArray.from_arrays(pa.array(vectors.ravel()), DIMENSION),
            "document": [f"d{i}" for i in range(ROWS)],
            "metadata": metadata,
            "uri": pa.nulls(ROWS, pa.large_string()),
        },
        schema=record_schema(DIMENSION),
    )
    directory: Path = tmp_path_factory.mktemp("segment") / "s"
    info = write_segment(directory, "s", "c/0/segments/s", table, GraphParams(Space.L2, 100, 16, 2)).info
    return open_segment(directory, info, 1)


def _view(segment: Segment, dead: BitMap) -> ShardView:
    graph = GraphParams(Space.L2, ef_construction=100, max_neighbors=16, threads=1)
    return ShardView(OpenManifest(Pointer(1, "x", ROWS + 1), SegmentSet([segment], [dead]), DIMENSION, graph, 0))


def _recall(view: ReadView, vectors: np.ndarray, alive: np.ndarray, selection: Selection, k: int) -> float:
    queries = np.random.default_rng(2).standard_normal((QUERIES, DIMENSION)).astype(np.float32)
    request = messages.QueryRequest(messages.Shard("c"), queries.tobytes(), QUERIES, DIMENSION, k, 100, selection)
    answer = knn.query_nearest(view, request)
    assert answer.counts == [min(k, len(alive))] * QUERIES
    found = np.frombuffer(answer.inserted, "<i8").reshape(QUERIES, -1) - 1
    hits = 0
    for row, query in zip(found, queries, strict=True):
        best = alive[nearest(Space.L2, query, vectors[alive], k).rows]
        hits += len(set(best.tolist()) & set(row.tolist()))
    return hits / found.size


def test_deleting_most_rows_by_tombstones_costs_no_recall(segment: Segment, vectors: np.ndarray) -> None:
    everything = _recall(_view(segment, BitMap()).read_view(), vectors, np.arange(ROWS), Selection(), 10)
    dead = np.random.default_rng(3).permutation(ROWS)[: ROWS * 2 // 3]
    alive = np.setdiff1d(np.arange(ROWS), dead)
    left = _recall(_view(segment, BitMap(dead.tolist())).read_view(), vectors, alive, Selection(), 10)
    assert everything > 0.95
    assert left >= everything - 0.01


def test_deleting_the_whole_neighbourhood_in_the_tail_still_finds_the_others(
    segment: Segment, vectors: np.ndarray
) -> None:
    """The graph comes back with dead rows only."""
    view = _view(segment, BitMap())
    near = [f"r{i}" for i in range(ROWS // 2)]
    (entries,) = split_batch(build_batch(Op.DELETE, near), Layout(0, 1)).values()
    head = ROWS + 1 + len(near)
    view.apply([Entry("a", "b", ROWS + 1, head, True, e.count, e.payload) for e in entries])
    view.position = head
    alive = np.arange(ROWS // 2, ROWS)
    assert _recall(view.read_view(), vectors, alive, Selection(), 10) > 0.95
    assert _recall(view.read_view(ROWS + 1), vectors, np.arange(ROWS), Selection(), 10) > 0.95


@pytest.mark.parametrize("share", [0.001, 0.01, 0.1, 0.5, 0.99])
def test_filters_of_every_selectivity_find_all_they_should(segment: Segment, vectors: np.ndarray, share: float) -> None:
    bound = round(ROWS * share)
    selection = Selection(where=MetadataCompare("n", Compare.LT, bound))
    assert _recall(_view(segment, BitMap()).read_view(), vectors, np.arange(bound), selection, 10) > 0.95


@pytest.mark.parametrize("k", [1, 10, 200])
def test_a_filter_that_matches_only_what_is_far_from_the_query_finds_it(
    segment: Segment, vectors: np.ndarray, k: int
) -> None:
    selection = Selection(where=MetadataCompare("far", Compare.EQ, 1))
    assert _recall(_view(segment, BitMap()).read_view(), vectors, np.arange(ROWS // 2, ROWS), selection, k) > 0.95


def test_a_k_beyond_everything_returns_everything(segment: Segment, vectors: np.ndarray) -> None:
    view = _view(segment, BitMap([5, 6])).read_view()
    alive = np.setdiff1d(np.arange(ROWS), [5, 6])
    assert _recall(view, vectors, alive, Selection(), 2**32 - 1) == 1.0
