"""What a worker has to answer, from the model's state; all of it exact."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import orjson

from shared.records.columns import Columns
from shared.records.selection import Selection
from shared.rpc import messages
from shared.vectors.distance import distances
from shared.vectors.space import Space
from tests.queryworker.world import World
from tests.shared.memtable.model import Row

ALL_COLUMNS: dict[str, Any] = {"documents": True, "metadatas": True, "uris": True}

Answer = tuple[list[str], list[str | None], list[dict[str, Any]], list[str | None], list[tuple[float, ...]]]


def in_order(state: dict[str, Row], keep: Callable[[str, Row], bool] = lambda _id, _row: True) -> list[str]:
    return [id_ for id_, row in sorted(state.items(), key=lambda item: item[1].inserted) if keep(id_, row)]


def columns_of(state: dict[str, Row], ids: list[str]) -> Answer:
    rows = [state[id_] for id_ in ids]
    return ids, [r.document for r in rows], [r.metadata for r in rows], [r.uri for r in rows], [r.vector for r in rows]


def shown(columns: Columns) -> Answer:
    assert columns.documents is not None
    assert columns.metadatas is not None
    assert columns.uris is not None
    assert columns.embeddings is not None
    vectors = np.frombuffer(columns.embeddings, "<f4").reshape(len(columns.ids), columns.dimension)
    metadatas = [{} if text is None else orjson.loads(text) for text in columns.metadatas]
    return columns.ids, columns.documents, metadatas, columns.uris, [tuple(vector.tolist()) for vector in vectors]


def get_request(world: World, selection: Selection | None = None, **options: object) -> messages.GetRequest:
    as_of = options.pop("as_of", None)
    shard = world.shard(as_of=as_of)
    return messages.GetRequest(
        shard,
        selection or Selection(),
        embeddings=True,
        **ALL_COLUMNS,
        **options,  # type: ignore[arg-type]
    )


def query_request(
    world: World, vectors: Sequence[tuple[float, ...]], k: int, selection: Selection | None = None,
    as_of: int | None = None, ef_search: int = 100,
) -> messages.QueryRequest:  # fmt: skip
    matrix = np.array(vectors, "<f4")
    return messages.QueryRequest(
        world.shard(as_of=as_of), matrix.tobytes(), len(vectors), matrix.shape[1], k, ef_search,
        selection or Selection(), include_embeddings=True, **ALL_COLUMNS,
    )  # fmt: skip


async def assert_get(world: World, state: dict[str, Row], as_of: int | None = None) -> None:
    answer = await world.worker.get(get_request(world, as_of=as_of))
    expected = in_order(state)
    assert shown(answer.columns) == columns_of(state, expected)
    assert np.frombuffer(answer.inserted, "<i8").tolist() == [state[id_].inserted for id_ in expected]
    counted = await world.worker.count(messages.CountRequest(world.shard(as_of=as_of)))
    assert counted.count == len(expected)


async def assert_query(
    world: World, state: dict[str, Row], vector: tuple[float, ...], k: int, as_of: int | None = None,
    space: Space = Space.L2, selection: Selection | None = None,
    keep: Callable[[str, Row], bool] = lambda _id, _row: True,
) -> None:  # fmt: skip
    answer = await world.worker.query(query_request(world, [vector], k, selection, as_of))
    kept = in_order(state, keep)
    if kept:
        matrix = np.array([state[id_].vector for id_ in kept], np.float32)
        measured = distances(space, np.array(vector, np.float32), matrix).tolist()
    else:
        measured = []
    best = sorted(zip(measured, [state[id_].inserted for id_ in kept], kept, strict=True))[:k]
    assert answer.counts == [len(best)]
    assert np.frombuffer(answer.distances, "<f4").tolist() == [distance for distance, _, _ in best]
    assert np.frombuffer(answer.inserted, "<i8").tolist() == [inserted for _, inserted, _ in best]
    assert shown(answer.columns) == columns_of(state, [id_ for _, _, id_ in best])
