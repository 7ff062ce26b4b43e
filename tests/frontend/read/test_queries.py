from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

from frontend.read.queries import Query, query_body
from shared.errors import InvalidArgument
from shared.records.include import QUERY_DEFAULT, Wanted
from shared.records.selection import Selection
from tests.frontend.fakes import FakeWorkers, Row, new_collection

VECTORS = np.array([[1, 0], [8, 0]], dtype=np.float32)


async def queried(workers: Any, query: Query, shards: int) -> dict[str, Any]:
    body = await query_body(workers, new_collection(shards=shards, dimension=2), query)
    assert isinstance(body, bytes | memoryview)
    answer: dict[str, Any] = json.loads(bytes(body))
    return answer


async def test_the_nearest_of_all_shards_are_found_for_every_query() -> None:
    workers = FakeWorkers([[Row(i, (i, 0)) for i in range(1, 10) if i % 3 == shard] for shard in range(3)])
    answer = await queried(workers, Query(Selection(), VECTORS, 3, Wanted(QUERY_DEFAULT)), shards=3)
    assert answer["ids"] == [["id1", "id2", "id3"], ["id8", "id7", "id9"]]
    assert answer["distances"] == [[0, 1, 4], [0, 1, 1]]


@pytest.mark.parametrize("shards", [1, 3])
async def test_a_query_is_explained_by_every_shard(shards: int) -> None:
    workers = FakeWorkers([[Row(i + 1, (i, 0))] for i in range(shards)])
    answer = await queried(workers, Query(Selection(), VECTORS, 3, Wanted(QUERY_DEFAULT, explain=True)), shards)
    assert [explanation["shard"] for explanation in answer["explain"]] == list(range(shards))


@pytest.mark.parametrize("shards", [1, 3])
async def test_a_query_restricted_to_unknown_ids_is_refused(shards: int) -> None:
    workers = FakeWorkers([[Row(i + 1, (i, 0))] for i in range(shards)])
    with pytest.raises(InvalidArgument, match="Error finding id"):
        await queried(workers, Query(Selection(["nope"]), VECTORS, 3, Wanted(())), shards)


async def test_the_width_of_the_search_is_that_of_the_collections_configuration() -> None:
    workers = FakeWorkers([[Row(1, (1, 0))]])
    await queried(workers, Query(Selection(), VECTORS, 3, Wanted(())), shards=1)
    assert workers.asked[0].ef_search == 100
