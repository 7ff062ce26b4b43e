"""The record routes over a fake log and fake workers: what each answers, and in which order things are checked."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import httpx
import pytest

from shared.errors import Gone, StaleGeneration
from shared.records.model import ReadLevel
from tests.frontend.fakes import COLLECTION_ID, FakeWorkers, Row, new_collection, new_context
from tests.frontend.server import client_of

BASE = f"/api/v2/tenants/default_tenant/databases/default_database/collections/{COLLECTION_ID}"
MISSING = {"error": "NotFoundError", "message": f"Collection [{COLLECTION_ID}] does not exist."}
Client = httpx.AsyncClient


@pytest.fixture
def context() -> Any:
    rows = [Row(i, (float(i), 0.0)) for i in range(1, 6)]
    return new_context(new_collection(dimension=2), FakeWorkers([rows]))


@pytest.fixture
async def client(context: Any) -> AsyncIterator[Client]:
    async with client_of(context) as client:
        yield client


async def post(client: Client, route: str, body: Any) -> tuple[int, Any]:
    response = await client.post(f"{BASE}/{route}", json=body)
    return response.status_code, response.json()


async def test_add_answers_201_and_the_other_writes_200(client: Client) -> None:
    body = {"ids": ["a"], "embeddings": [[1, 2]]}
    assert await post(client, "add", body) == (201, {})
    assert await post(client, "upsert", body) == (200, {})
    assert await post(client, "update", body) == (200, {})


async def test_a_large_batch_takes_the_way_through_threads(client: Client, context: Any) -> None:
    count = 20_000
    body = {"ids": [f"id{i}" for i in range(count)], "embeddings": [[i, 1] for i in range(count)]}
    assert await post(client, "add", body) == (201, {})
    assert context.log.appends[0].count == count


async def test_get_and_query_answer_with_their_defaults(client: Client) -> None:
    assert await post(client, "get", {"limit": 2, "offset": 1}) == (
        200,
        {
            "ids": ["id2", "id3"],
            "embeddings": None,
            "documents": ["d2", "d3"],
            "uris": None,
            "metadatas": [{"i": 2}, {"i": 3}],
            "include": ["documents", "metadatas"],
        },
    )
    assert await post(client, "query", {"query_embeddings": [[1, 0]], "n_results": 2}) == (
        200,
        {
            "ids": [["id1", "id2"]],
            "embeddings": None,
            "documents": [["d1", "d2"]],
            "uris": None,
            "metadatas": [[{"i": 1}, {"i": 2}]],
            "distances": [[0.0, 1.0]],
            "include": ["documents", "metadatas", "distances"],
        },
    )


async def test_a_query_without_vectors_has_no_inner_lists(client: Client, context: Any) -> None:
    status, answer = await post(client, "query", {"query_embeddings": [], "include": ["distances"]})
    assert (status, answer["ids"], answer["distances"]) == (200, [], [])


async def test_ten_results_unless_said_otherwise(client: Client, context: Any) -> None:
    for body in ({}, {"n_results": None}):
        await post(client, "query", {"query_embeddings": [[1, 0]], **body})
        assert context.workers.asked[-1].k == 10


async def test_count(client: Client) -> None:
    response = await client.get(f"{BASE}/count?read_level=index_only")
    assert (response.status_code, response.json()) == (200, 5)
    response = await client.get(f"{BASE}/count?read_level=")
    assert response.status_code == 400


@pytest.mark.parametrize("shards", [1, 3])
async def test_a_query_may_say_how_fresh_it_must_be(client: Client, context: Any, shards: int) -> None:
    context.rows.collection = new_collection(dimension=2, shards=shards)
    context.workers.shards = [[] for _ in range(shards)]
    for level in ReadLevel:
        status, _ = await post(client, "query", {"query_embeddings": [[1, 0]], "read_level": level.value})
        assert status == 200
        assert {asked.shard.read_level for asked in context.workers.asked[-shards:]} == {level}
    for wrong in ("newest", None, 1):
        assert (await post(client, "query", {"query_embeddings": [[1, 0]], "read_level": wrong}))[0] == 422


@pytest.mark.parametrize(
    ("body", "answer"),
    [
        ({}, (200, {"deleted": 0})),
        ({"ids": None, "where": None, "where_document": None}, (200, {"deleted": 0})),
        ({"ids": ["id1", "id1", "nope"]}, (200, {"deleted": 3})),
        ({"where": {"k": 1}, "limit": 2}, (200, {"deleted": 2})),
        ({"where": {"k": 1}, "limit": None}, (200, {"deleted": 5})),
        ({"where": {"k": 1}, "limit": 0}, (200, {"deleted": 0})),
        ({"ids": [], "where": {"k": 1}}, (200, {"deleted": 0})),
        ({"ids": ["id2", "nope"], "where_document": {"$contains": "x"}}, (200, {"deleted": 1})),
        ({"ids": []}, (400, "Validation error: ids, where: Either ids or where must be specified")),
        ({"ids": [], "limit": 1}, (400, "Validation error: ids, where: Either ids or where must be specified")),
        (
            {"limit": 1},
            (400, "Validation error: limit, where: limit can only be specified when a where clause is provided"),
        ),
        (
            {"ids": ["a"], "limit": 1},
            (400, "Validation error: limit, where: limit can only be specified when a where clause is provided"),
        ),
        ({"where": {}}, (400, "Invalid where clause")),
        ({"ids": [], "where": {}, "limit": 1}, (400, "Invalid where clause")),
    ],
)
async def test_selectors_of_delete(client: Client, context: Any, body: Any, answer: tuple[int, Any]) -> None:
    status, said = await post(client, "delete", body)
    assert (status, said if status == 200 else said["message"]) == answer
    deleted = said.get("deleted", 0)
    assert sum(append.count for append in context.log.appends) == deleted


async def test_the_shape_comes_before_everything_else(client: Client, context: Any) -> None:
    path = "/api/v2/tenants/t/databases/x/collections/not-a-uuid"
    for route, body in (("add", {}), ("get", {"limit": -1}), ("query", {}), ("delete", {"ids": 5}), ("search", {})):
        response = await client.post(f"{path}/{route}", json=body)
        assert response.status_code == 422
        assert response.json()["message"].startswith("Failed to deserialize the JSON body into the target type: ")


@pytest.mark.parametrize(
    "body",
    [
        {"ids": "a"},
        {"offset": 1.0},
        {"limit": "1"},
        {"limit": 2**32},
        {"include": None},
        {"include": "documents"},
        {"include": ["data"]},
        [],
    ],
)
async def test_get_refuses_another_shape(client: Client, body: Any) -> None:
    assert (await post(client, "get", body))[0] == 422


async def test_filters_are_parsed_before_the_dimension_and_indexes_are_checked_after_it(client: Client) -> None:
    query = {"query_embeddings": [[1, 2, 3]]}
    assert (await post(client, "query", {**query, "where": {}}))[1]["message"] == "Invalid where clause"
    on_document = {**query, "where": {"#document": "x"}}
    assert "dimension of 2, got 3" in (await post(client, "query", on_document))[1]["message"]
    on_document["query_embeddings"] = [[1, 2]]
    assert "'#document' with type 'Str'" in (await post(client, "query", on_document))[1]["message"]


async def test_a_row_cached_before_the_first_write_is_not_believed(client: Client, context: Any) -> None:
    context.rows.collection = replace(context.rows.collection, dimension=None)
    status, answer = await post(client, "query", {"query_embeddings": [[1, 0]], "include": []})
    assert (status, answer["ids"]) == (200, [["id1", "id2", "id3", "id4", "id5"]])
    assert context.rows.refreshed == 1


async def test_a_search_does_not_believe_such_a_row_either(client: Client, context: Any) -> None:
    context.rows.collection = replace(context.rows.collection, dimension=None)
    status, answer = await post(client, "search", {"searches": [{"rank": {"$knn": {"query": [1, 2, 3]}}}]})
    assert (status, answer["message"]) == (400, "Collection expecting embedding with dimension of 2, got 3")
    assert context.rows.refreshed == 1


BAD_BODIES = [
    ("query", {"query_embeddings": [[1, 0]], "where": {"$or": 1}}),
    ("search", {"searches": [{}] * 1001}),
]


@pytest.mark.parametrize(("route", "body"), BAD_BODIES)
async def test_while_the_catalog_is_away_a_wrong_body_is_refused_all_the_same(
    client: Client, context: Any, route: str, body: Any
) -> None:
    context.rows.collection = replace(context.rows.collection, dimension=None)
    assert (await post(client, route, body))[0] == 400
    context.rows.collection, context.rows.away = replace(context.rows.collection, dimension=None), True
    assert (await post(client, route, body))[0] == 400
    good = {"query_embeddings": [[1, 0]], "searches": []}
    assert (await post(client, route, good))[0] == 503


@pytest.mark.parametrize(("route", "body"), BAD_BODIES)
async def test_a_collection_that_was_deleted_is_missing_whatever_the_body_holds(
    client: Client, context: Any, route: str, body: Any
) -> None:
    context.rows.collection, context.rows.current = replace(context.rows.collection, dimension=None), None
    assert await post(client, route, body) == (404, MISSING)


async def test_a_collection_with_other_shards_by_now_is_read_and_written_by_its_current_row(
    client: Client, context: Any
) -> None:
    context.rows.current = new_collection(dimension=2, shards=2, generation=2)
    context.workers.shards.append([Row(6, (6.0, 0.0))])
    for failing, route, body in (
        (context.workers, "get", {"include": []}),
        (context.workers, "query", {"query_embeddings": [[1, 0]], "include": []}),
        (context.log, "add", {"ids": ["a"], "embeddings": [[1, 2]]}),
    ):
        context.rows.collection, refreshed = new_collection(dimension=2), context.rows.refreshed
        failing.failures = [StaleGeneration("rebuilt")]
        status, answer = await post(client, route, body)
        assert status in (200, 201)
        assert "id6" in str(answer) or route == "add"
        assert context.rows.refreshed == refreshed + 1
    assert [append.generation for append in context.log.appends] == [1, 2]


@pytest.mark.parametrize("vectors", [[[1, 2, 3]], [[]], [[1], [2]]])
async def test_any_width_is_fine_before_the_first_write(client: Client, context: Any, vectors: Any) -> None:
    context.rows.collection = context.rows.current = replace(context.rows.collection, dimension=None)
    status, answer = await post(client, "query", {"query_embeddings": vectors})
    assert (status, answer["ids"], answer["documents"]) == (200, [[]] * len(vectors), [[]] * len(vectors))
    assert context.workers.asked == []
    status, answer = await post(client, "query", {"query_embeddings": [*vectors, [1, 2]]})
    assert (status, answer["message"]) == (400, "Inconsistent dimensions in provided embeddings")


async def test_a_query_that_is_not_finite_is_refused(client: Client) -> None:
    status, answer = await post(client, "query", {"query_embeddings": [[1e39, 0]]})
    assert (status, answer["error"]) == (400, "InvalidArgumentError")


@pytest.mark.parametrize(
    ("route", "body"),
    [
        ("get", {}),
        ("query", {"query_embeddings": [[1, 2]]}),
        ("add", {"ids": ["a"], "embeddings": [[1, 2]]}),
        ("delete", {"ids": ["a"]}),
        ("delete", {"where": {"k": 1}}),
    ],
)
async def test_a_collection_found_to_be_deleted_is_a_404(client: Client, context: Any, route: str, body: Any) -> None:
    context.workers.failures = [Gone("deleted")]
    context.log.failures = [Gone("deleted")]
    context.rows.current = None
    assert await post(client, route, body) == (404, MISSING)
    assert context.rows.forgotten == 1


async def test_a_collection_that_lost_its_state_and_not_its_row_is_unavailable(client: Client, context: Any) -> None:
    context.workers.failures = [Gone("deleted")]
    status, _ = await post(client, "get", {})
    assert status == 503


async def test_what_a_search_needs_is_checked_before_anybody_is_asked(client: Client, context: Any) -> None:
    status, answer = await post(client, "search", {"searches": [{"filter": {"#document": {"$eq": "x"}}}]})
    assert (status, answer["error"]) == (400, "InvalidArgumentError")
    sparse = {"$knn": {"query": {"indices": [1], "values": [1]}, "key": "sv"}}
    status, answer = await post(client, "search", {"searches": [{"rank": sparse}]})
    assert (status, answer["message"]) == (
        400,
        "Cannot filter using metadata key 'sv' with type 'SparseVector' because indexing is disabled",
    )
    status, answer = await post(client, "search", {"searches": [{"rank": {"$knn": {"query": [1, 2, 3]}}}]})
    assert (status, answer["message"]) == (400, "Collection expecting embedding with dimension of 2, got 3")
    assert context.workers.asked == []


async def test_a_search_for_nothing_and_one_of_a_collection_without_records(client: Client, context: Any) -> None:
    members = ("ids", "documents", "embeddings", "metadatas", "scores", "select")
    assert await post(client, "search", {"searches": []}) == (200, {member: [] for member in members})
    context.rows.collection = context.rows.current = new_collection()
    select = {"keys": ["#score", "#document", "b", "a", "b"]}
    rank = {"$knn": {"query": [1, 2, 3]}}
    assert await post(client, "search", {"searches": [{"rank": rank, "select": select, "count": True}]}) == (
        200,
        {
            "ids": [[]],
            "documents": [[]],
            "embeddings": [None],
            "metadatas": [[]],
            "scores": [[]],
            "select": [["#document", "#score", "a", "b"]],
            "counts": [0],
        },
    )
