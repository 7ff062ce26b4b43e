"""What a query is answered does not depend on the queries that it comes with, nor on where the records lie."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from pyroaring import BitMap

from queryworker.query import knn
from queryworker.view.read_view import ReadView
from queryworker.view.shard_view import OpenManifest, ShardView
from shared.cluster.placement import Layout
from shared.log.batch import build_batch, split_batch
from shared.log.state import Entry, Pointer
from shared.records.model import Op
from shared.records.selection import Selection
from shared.records.where import Compare, DocumentContains, DocumentRegex, MetadataCompare, Where
from shared.rpc import messages
from shared.segment.reader import Segment
from shared.segment.segment_set import SegmentSet
from shared.vectors.arrays import Vectors
from shared.vectors.space import Space
from tests.shared.segment.tables import build, params, table, vectors_of

ROWS, DIMENSION, K = 3000, 130, 10
FILTERS = [None, MetadataCompare("n", Compare.LT, 2000), MetadataCompare("n", Compare.LT, 90)]


def _along(rows: int, seed: int, scales: Vectors) -> Vectors:
    vectors: Vectors = vectors_of(rows, DIMENSION, seed) * scales
    return vectors


FALLING = np.geomspace(1.0, 0.02, DIMENSION).astype(np.float32)
"""Most of a vector lies in its first directions: the graph compares these alone."""


@pytest.fixture(scope="module", params=Space)
def segment(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Segment:
    space: Space = request.param
    _, opened = build(tmp_path_factory.mktemp(space) / "s", table(_along(ROWS, 0, FALLING)), space)
    assert opened.dimension_share < 1
    return opened


def _view(segments: list[Segment]) -> ShardView:
    rows = sum(segment.rows for segment in segments)
    stack = SegmentSet(segments, [BitMap() for _ in segments])
    return ShardView(OpenManifest(Pointer(1, "x", rows + 1), stack, DIMENSION, params(segments[0].info.space), 0))


def _request(vectors: Vectors, where: Where | None = None, k: int = K) -> messages.QueryRequest:
    selection = Selection(where=where)
    return messages.QueryRequest(messages.Shard("c"), vectors.tobytes(), len(vectors), DIMENSION, k, 50, selection)


def _found(view: ReadView, requests: list[messages.QueryRequest]) -> tuple[bytes, bytes]:
    answer = knn.query_batch(view, requests)
    return answer.inserted, answer.distances


@pytest.mark.parametrize("where", FILTERS, ids=["all", "most", "few"])
def test_queries_are_answered_together_as_alone(segment: Segment, where: MetadataCompare | None) -> None:
    """Some of them have directions of their own: the graph is searched more widely for these, and for no others."""
    strange = _along(5, 9, FALLING[::-1].copy())
    queries = np.concatenate([_along(20, 5, FALLING), strange, segment.vectors[:7]])
    unlike = segment.out_of_distribution(queries)
    assert unlike.any()
    assert not unlike.all()
    view = _view([segment]).read_view()
    requests = [_request(query[None, :], where) for query in queries]
    alone = [_found(view, [request]) for request in requests]
    together = _found(view, requests)
    assert together == tuple(map(b"".join, zip(*alone, strict=True)))
    assert _found(view, [_request(queries, where)]) == together
    assert unlike.tolist() == [bool(segment.out_of_distribution(query[None, :])[0]) for query in queries]


@pytest.mark.parametrize("where", [DocumentContains("99"), DocumentRegex("[0-9]7$")], ids=["contains", "regex"])
def test_a_query_that_finds_too_little_has_no_effect_on_the_others(segment: Segment, where: Where) -> None:
    """By filters that are decided about while searching: all documents only where those of the nearest do not match."""
    queries = np.concatenate([_along(20, 5, FALLING), segment.vectors[[199, 299, 17, 47]]])
    view = _view([segment]).read_view()
    for k in (1, 3, K):
        alone = [_found(view, [_request(query[None, :], where, k)]) for query in queries]
        assert _found(view, [_request(queries, where, k)]) == tuple(map(b"".join, zip(*alone, strict=True)))


@pytest.mark.parametrize("space", Space)
def test_equal_records_are_equally_far_wherever_they_lie_and_come_by_insertion(tmp_path: Path, space: Space) -> None:
    """In a segment with a graph, in one without, and in the tail. What is left of 1 - 1 shows the last bit of a sum."""
    vectors = _along(ROWS + 401, 0, FALLING)
    vectors /= np.linalg.norm(vectors, axis=1)[:, None]
    vector, vectors = vectors[-1], vectors[:-1]
    equal = [9, 10, 640, 1301, 2999, ROWS + 3, ROWS + 188, ROWS + 200, ROWS + 333]
    vectors[equal] = vector
    parts = [vectors[:ROWS], vectors[ROWS : ROWS + 200], vectors[ROWS + 200 :]]
    segments = [
        build(tmp_path / "large", table(parts[0]), space)[1],
        build(tmp_path / "small", table(parts[1], [f"s{n}" for n in range(200)], first=ROWS + 1), space)[1],
    ]
    view = _view(segments)
    batch = build_batch(Op.ADD, [f"t{n}" for n in range(200)], embeddings=parts[2])
    (entries,) = split_batch(batch, Layout(0, 1)).values()
    begin, head = ROWS + 201, ROWS + 401
    view.apply([Entry("a", "b", begin, head, True, entry.count, entry.payload) for entry in entries])
    view.position = head
    for k in (len(equal), 4):
        answer = knn.query_nearest(view.read_view(), _request(vector[None, :], k=k))
        assert np.frombuffer(answer.inserted, "<i8").tolist() == [row + 1 for row in equal[:k]]
        assert len(set(np.frombuffer(answer.distances, "<f4").tolist())) == 1
