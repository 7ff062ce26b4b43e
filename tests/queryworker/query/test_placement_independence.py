"""A distance has the same bits wherever its record lies, and whatever else is asked (architecture, promise 8)."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from pyroaring import BitMap

from queryworker.query import knn
from queryworker.view.read_view import ReadView
from queryworker.view.shard_view import OpenManifest, ShardView
from shared.cluster.placement import Layout
from shared.log.batch import build_batch, split_batch
from shared.log.state import Entry, Pointer
from shared.records.model import Op
from shared.records.selection import Selection
from shared.rpc import messages
from shared.segment.reader import Segment
from shared.segment.segment_set import SegmentSet
from shared.vectors.arrays import Vectors
from shared.vectors.space import Space
from tests.shared.segment.tables import build, params, table

NUMBERS = st.one_of(
    st.floats(-4, 4, width=32),
    st.sampled_from([0.0, -0.0, 1.0, 1e-45, -1e-38, 3e-20, 1e10, -1e10, 0.1]),
)


@st.composite
def _cases(draw: st.DrawFn) -> tuple[Space, Vectors, Vectors, list[int]]:
    """A space, the records' vectors, the queries' vectors, and the number of the part in which each record lies: 0 and
    1 are segments, 2 is the tail.
    """
    dimension = draw(st.one_of(st.integers(1, 9), st.sampled_from([31, 64, 130])))
    seed = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    rows, queries = draw(st.integers(1, 40)), draw(st.integers(1, 6))
    vectors = seed.standard_normal((rows + queries, dimension)).astype(np.float32)
    for _ in range(draw(st.integers(0, 12))):
        at = draw(st.integers(0, rows + queries - 1)), draw(st.integers(0, dimension - 1))
        vectors[at] = draw(NUMBERS)
    parts = [draw(st.integers(0, 2)) for _ in range(rows)]
    return draw(st.sampled_from(list(Space))), vectors[:rows], vectors[rows:], parts


def _view(directory: Path, space: Space, vectors: Vectors, parts: list[int]) -> ReadView:
    """A view of one shard whose records are numbered by their order, part by part."""
    segments: list[Segment] = []
    first = 1
    for part in (0, 1):
        rows = vectors[[row for row, lies_in in enumerate(parts) if lies_in == part]]
        if len(rows):
            ids = [f"{part}-{number}" for number in range(len(rows))]
            segments.append(build(directory / f"{part}", table(rows, ids, first=first), space)[1])
            first += len(rows)
    stack = SegmentSet(segments, [BitMap() for _ in segments])
    view = ShardView(OpenManifest(Pointer(1, "x", first), stack, vectors.shape[1], params(space), 0))
    tail = vectors[[row for row, lies_in in enumerate(parts) if lies_in == 2]]
    if len(tail):
        batch = build_batch(Op.ADD, [f"t{number}" for number in range(len(tail))], embeddings=tail)
        (entries,) = split_batch(batch, Layout(0, 1)).values()
        head = first + len(tail)
        view.apply([Entry("a", "b", first, head, True, entry.count, entry.payload) for entry in entries])
        view.position = head
    return view.read_view()


def _distances(view: ReadView, queries: Vectors, order: list[int]) -> list[dict[int, bytes]]:
    """For each query, by the number of each record in `order`, the bytes of its distance."""
    dimension, k = queries.shape[1], len(order)
    shard, everything = messages.Shard("c"), Selection()
    request = messages.QueryRequest(shard, queries.tobytes(), len(queries), dimension, k, 50, everything)
    answer = knn.query_nearest(view, request)
    inserted = np.frombuffer(answer.inserted, "<i8").reshape(len(queries), k)
    distances = np.frombuffer(answer.distances, "<f4").reshape(len(queries), k)
    return [
        {order[place - 1]: distance.tobytes() for place, distance in zip(places, row, strict=True)}
        for places, row in zip(inserted.tolist(), distances, strict=True)
    ]


@settings(max_examples=60, deadline=None)
@given(_cases())
def test_a_distance_has_the_same_bits_in_a_segment_in_the_tail_and_in_another_shard_alone_and_in_a_batch(
    case: tuple[Space, Vectors, Vectors, list[int]],
) -> None:
    space, vectors, queries, parts = case
    with tempfile.TemporaryDirectory() as directory:
        together = _view(Path(directory) / "one", space, vectors, [0] * len(vectors))
        expected = _distances(together, queries, list(range(len(vectors))))
        for number, query in enumerate(queries):
            assert _distances(together, query[None, :], list(range(len(vectors)))) == [expected[number]]
        order = [row for part in range(3) for row, lies_in in enumerate(parts) if lies_in == part]
        assert _distances(_view(Path(directory) / "parts", space, vectors, parts), queries, order) == expected
        shards: list[dict[int, bytes]] = [{} for _ in queries]
        for shard in range(3):  # as if each part were a shard, with all its records in the tail
            rows = [row for row, lies_in in enumerate(parts) if lies_in == shard]
            if rows:
                alone = _view(Path(directory) / f"shard-{shard}", space, vectors[rows], [2] * len(rows))
                for found, more in zip(shards, _distances(alone, queries, rows), strict=True):
                    found.update(more)
        assert shards == expected
