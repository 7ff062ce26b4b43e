"""Texts instead of embeddings, through the record routes: what is embedded, what is stored, and what is not."""

from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import httpx
import numpy as np
import pytest

from frontend.embed.embedders import Embedders
from frontend.embed.texts import TextEmbedding
from frontend.http.errors import EmbeddingFailed
from frontend.parse.search import read_search
from shared.errors import Backoff, InvalidArgument, PolychromeError, StaleGeneration
from tests.frontend.embed.fakes import Lengths
from tests.frontend.fakes import COLLECTION_ID, FakeWorkers, Row, new_collection, new_context
from tests.frontend.server import client_of

BASE = f"/api/v2/tenants/default_tenant/databases/default_database/collections/{COLLECTION_ID}"
Client = httpx.AsyncClient


@pytest.fixture
def lengths() -> Lengths:
    return Lengths()


@pytest.fixture
def context(lengths: Lengths) -> Any:
    rows = [Row(i, (float(i), 1.0)) for i in range(1, 6)]
    embedders = Embedders({"default": lengths}, "default", timeout_s=10)
    return new_context(new_collection(dimension=2), FakeWorkers([rows]), embedders)


@pytest.fixture
async def client(context: Any) -> AsyncIterator[Client]:
    async with client_of(context) as client:
        yield client


@pytest.fixture
async def client_without_functions(context: Any) -> AsyncIterator[Client]:
    """A client of a server whose operator has registered no embedding function."""
    context.embedders = Embedders({}, None, timeout_s=10)
    async with client_of(context) as client:
        yield client


async def post(client: Client, route: str, body: Any) -> tuple[int, Any]:
    response = await client.post(f"{BASE}/{route}", json=body)
    return response.status_code, response.json()


def stored(context: Any) -> list[tuple[str, list[float] | None, str | None]]:
    return [
        (row["id"], row.get("embedding"), row["document"])
        for append in context.log.appends
        for rows in append.parts.values()
        for row in rows
    ]


@pytest.mark.parametrize(("route", "status"), [("add", 201), ("upsert", 200)])
@pytest.mark.parametrize("none", [{}, {"embeddings": None}])
async def test_documents_without_embeddings_are_embedded(
    client: Client, context: Any, route: str, status: int, none: dict[str, Any]
) -> None:
    body = {"ids": ["a", "b", "c"], "documents": ["x", "", "Übergröße 🙂"], "metadatas": [{"k": 1}, None, None]}
    assert await post(client, route, body | none) == (status, {})
    assert stored(context) == [("a", [1.0, 1.0], "x"), ("b", [0.0, 1.0], ""), ("c", [11.0, 1.0], "Übergröße 🙂")]
    assert context.log.appends[0].dimension == 2


async def test_embeddings_that_were_given_are_kept(client: Client, context: Any, lengths: Lengths) -> None:
    body = {"ids": ["a"], "documents": ["xyz"], "embeddings": [[7, 8]]}
    assert await post(client, "add", body) == (201, {})
    assert stored(context) == [("a", [7.0, 8.0], "xyz")]
    assert not lengths.asked


@pytest.mark.parametrize("route", ["upsert", "conditional/commit"])
async def test_documents_are_embedded_by_the_function_that_the_collection_selects_now(
    client: Client, context: Any, lengths: Lengths, route: str
) -> None:
    """The cached row still names the function of before."""
    other = Lengths()
    other.vectors = np.array([[5, 6]], np.float32)
    context.embedders._by_name["other"] = other
    function = {"type": "known", "name": "other", "config": {}}
    context.rows.current = new_collection(
        dimension=2,
        generation=2,
        configuration={**context.rows.collection.configuration, "embedding_function": function},
    )
    context.log.failures = [StaleGeneration("changed")]
    write = {"ids": ["a"], "documents": ["xyz"]}
    commit = {"operations": [{"operation": "upsert", "payload": write}]}
    status, _ = await post(client, route, write if route == "upsert" else commit)
    assert status == 200
    refused, appended = context.log.appends
    assert (refused.generation, appended.generation) == (1, 2)
    assert appended.parts[0][0]["embedding"] == [5.0, 6.0]
    assert refused.request_id == appended.request_id


@pytest.mark.parametrize(
    "body",
    [
        {"ids": ["a"]},
        {"ids": ["a"], "documents": None},
        {"ids": ["a", "b"], "documents": ["x", None]},
        {"ids": ["a", "b"], "documents": ["x", "y"], "embeddings": [[1, 2], None]},
        {"ids": ["a"], "documents": "x"},
        {"ids": ["a"], "documents": [7]},
        {"ids": ["a"], "uris": ["u"]},
    ],
)
async def test_rows_with_neither_are_the_422_of_old(
    client: Client, context: Any, lengths: Lengths, body: dict[str, Any]
) -> None:
    for route in ("add", "upsert"):
        status, answer = await post(client, route, body)
        assert (status, answer["error"]) == (422, "ChromaError")
    assert not context.log.appends
    assert not lengths.asked


async def test_the_row_that_has_neither_is_named(client: Client) -> None:
    _, answer = await post(client, "add", {"ids": ["a", "b"], "documents": ["x", None]})
    assert "missing field `embeddings`: row 1 (counted from 0) has no document" in answer["message"]


@pytest.mark.parametrize(
    "body",
    [
        {"ids": ["a", "b"], "documents": ["x"]},
        {"ids": [""], "documents": ["x"]},
        {"ids": ["a"], "documents": ["x"], "uris": ["u", "v"]},
        {"ids": ["a"], "documents": ["x"], "metadatas": [{"": 1}]},
    ],
)
async def test_what_is_wrong_otherwise_is_found_before_anything_is_embedded(
    client: Client, context: Any, lengths: Lengths, body: dict[str, Any]
) -> None:
    status, answer = await post(client, "add", body)
    assert (status, answer["error"]) == (400, "InvalidArgumentError"), answer
    assert not lengths.asked
    assert not context.log.appends


async def test_no_rows_store_nothing(client: Client, context: Any, lengths: Lengths) -> None:
    assert await post(client, "add", {"ids": [], "documents": []}) == (201, {})
    assert await post(client, "update", {"ids": [], "documents": [], "embed_documents": True}) == (200, {})
    assert not context.log.appends
    assert not lengths.asked


async def test_an_update_keeps_vectors_unless_it_asks_otherwise(client: Client, context: Any, lengths: Lengths) -> None:
    body = {"ids": ["a", "b"], "documents": ["new", None]}
    assert await post(client, "update", body) == (200, {})
    assert await post(client, "update", body | {"embed_documents": "yes"}) == (200, {})
    assert not lengths.asked
    assert await post(client, "update", body | {"embed_documents": True}) == (200, {})
    assert stored(context)[-2:] == [("a", [3.0, 1.0], "new"), ("b", None, None)]


async def test_the_dimension_rule_holds_for_what_was_embedded(client: Client, context: Any, lengths: Lengths) -> None:
    lengths.width = 3
    status, answer = await post(client, "add", {"ids": ["a"], "documents": ["x"]})
    assert (status, answer["message"]) == (400, "Collection expecting embedding with dimension of 2, got 3")
    status, answer = await post(client, "query", {"query_texts": ["x"]})
    assert (status, answer["message"]) == (400, "Collection expecting embedding with dimension of 2, got 3")
    assert not context.log.appends


async def test_the_first_write_fixes_the_functions_dimension(client: Client, context: Any, lengths: Lengths) -> None:
    context.rows.collection = context.rows.current = new_collection()
    lengths.width = 4
    assert await post(client, "add", {"ids": ["a"], "documents": ["x"]}) == (201, {})
    assert context.log.appends[0].dimension == 4


@pytest.mark.parametrize("name", ["query_texts", "queryTexts"])
async def test_query_texts_are_embedded(client: Client, lengths: Lengths, name: str) -> None:
    body = {name: ["xxx", "xxxxx"], "n_results": 2, "include": ["distances"]}
    status, answer = await post(client, "query", body)
    assert (status, [ids[0] for ids in answer["ids"]]) == (200, ["id3", "id5"])
    assert [distances[0] for distances in answer["distances"]] == [0.0, 0.0]
    assert lengths.asked == [["xxx", "xxxxx"]]


async def test_query_texts_and_embeddings_exclude_each_other(client: Client, lengths: Lengths) -> None:
    for extra in ({"query_embeddings": [[1, 2]]}, {"queryTexts": ["y"]}):
        status, answer = await post(client, "query", {"query_texts": ["x"], **extra})
        assert (status, answer["error"]) == (400, "InvalidArgumentError")
    assert not lengths.asked


@pytest.mark.parametrize("body", [{}, {"query_embeddings": None}, {"query_texts": "x"}, {"query_texts": [1]}])
async def test_a_query_with_neither_is_the_422_of_old(client: Client, body: dict[str, Any]) -> None:
    status, answer = await post(client, "query", body)
    assert (status, answer["error"]) == (422, "ChromaError")


async def test_no_query_texts_are_no_queries(client: Client) -> None:
    status, answer = await post(client, "query", {"query_texts": []})
    assert (status, answer["ids"]) == (200, [])


@pytest.mark.parametrize(
    ("error", "status", "name", "words"),
    [
        (EmbeddingFailed("default", "is unavailable, try again later"), 503, "ChromaError", "nothing was stored"),
        (Backoff("The embedding function 'default' is busy", 7), 429, "Backoff", "busy"),
        (InvalidArgument("The embedding function 'default' refuses the texts"), 400, "InvalidArgumentError", "refuses"),
        (RuntimeError("a secret"), 500, "InternalError", "Internal error"),
    ],
)
async def test_failures_are_clear_and_store_nothing(
    client: Client, context: Any, lengths: Lengths, error: Exception, status: int, name: str, words: str
) -> None:
    lengths.fail_with = error
    for route, body in (("add", {"ids": ["a"], "documents": ["x"]}), ("query", {"query_texts": ["x"]})):
        answered, answer = await post(client, route, body)
        assert (answered, answer["error"]) == (status, name)
        assert words in answer["message"]
    assert not context.log.appends
    assert context.log.dimension == 2


async def test_a_collection_whose_function_is_not_registered_is_told_so(client: Client, context: Any) -> None:
    function = {"type": "known", "name": "openai", "config": {"api_base": "http://127.0.0.1:1"}}
    changed = replace(context.rows.collection, configuration={"hnsw": {}, "embedding_function": function})
    context.rows.collection = context.rows.current = changed
    status, answer = await post(client, "add", {"ids": ["a"], "documents": ["x"]})
    assert (status, answer["error"]) == (400, "InvalidArgumentError")
    assert "'openai' is not registered with this server" in answer["message"]
    assert not context.log.appends


@pytest.mark.parametrize(
    ("route", "body"),
    [
        ("add", {"ids": ["a"], "documents": ["x"]}),
        ("upsert", {"ids": ["a"], "documents": ["x"]}),
        ("query", {"query_texts": ["x"]}),
    ],
)
async def test_without_any_function_all_is_as_it_was(client_without_functions: Client, route: str, body: Any) -> None:
    status, answer = await post(client_without_functions, route, body)
    assert (status, answer["error"]) == (422, "ChromaError")
    status, _ = await post(
        client_without_functions, "query", {"query_embeddings": [[1, 2]], "query_texts": ["ignored"]}
    )
    assert status == 200


def test_the_error_of_a_failed_embedding_is_one_that_was_not_applied() -> None:
    assert issubclass(EmbeddingFailed, PolychromeError)
    assert str(EmbeddingFailed("x", "is away")) == "The embedding function 'x' is away; nothing was stored"


def knn(query: Any, **more: Any) -> dict[str, Any]:
    return {"$knn": {"query": query, **more}}


async def test_texts_that_searches_look_for_are_embedded_once_each(context: Any, lengths: Lengths) -> None:
    rank = {"$sum": [knn("xx"), {"$mul": [{"$val": 2}, knn("xx", limit=3)]}, knn([7, 8]), knn("xxxx")]}
    body = read_search({"searches": [{"rank": rank}, {}, {"rank": knn("xx")}]}, can_embed=True)
    first, second, third = (
        await TextEmbedding(context.embedders).embed_searches(context.rows.collection, body)
    ).searches
    assert lengths.asked == [["xx", "xxxx"]]
    assert [found.query for found in first.knns] == [[2.0, 1.0], [2.0, 1.0], [7, 8], [4.0, 1.0]]
    assert [found.limit for found in first.knns] == [16, 3, 16, 16]
    assert (second.knns, third.knns[0].query) == ((), [2.0, 1.0])


async def test_a_collection_that_says_nothing_of_vectors_refuses_texts(
    client: Client, context: Any, lengths: Lengths
) -> None:
    unwritten = new_collection()
    context.rows.collection = context.rows.current = unwritten
    status, answer = await post(client, "search", {"searches": [{"rank": knn("x")}]})
    assert (status, answer["error"]) == (422, "ChromaError")
    function = {"type": "known", "name": "default", "config": {}}
    named = replace(unwritten, configuration=unwritten.configuration | {"embedding_function": function})
    context.rows.collection = context.rows.current = named
    status, answer = await post(client, "search", {"searches": [{"rank": knn("x")}]})
    assert (status, answer["ids"]) == (200, [[]])


async def test_a_search_without_texts_asks_nobody(client: Client, lengths: Lengths) -> None:
    await post(client, "search", {"searches": [{"rank": knn([1, 2])}]})
    assert not lengths.asked


async def test_a_text_is_looked_for_among_embeddings_alone(client: Client, lengths: Lengths) -> None:
    status, answer = await post(client, "search", {"searches": [{"rank": knn("x", key="sparse")}]})
    assert (status, answer["error"]) == (400, "InvalidArgumentError")
    assert "searches[0].rank: A text can be looked for at #embedding only" in answer["message"]
    assert not lengths.asked


async def test_without_any_function_a_text_is_no_query(client_without_functions: Client) -> None:
    status, answer = await post(client_without_functions, "search", {"searches": [{"rank": knn("x")}]})
    assert (status, answer["error"]) == (422, "ChromaError")
