"""Quotas of single requests, over HTTP: what is over one is refused with 422, as the official clients know it."""

from __future__ import annotations

import dataclasses
from typing import Any, Final

import pytest

from frontend.admission.tenant_quotas import LOWERED
from shared.catalog import Collection
from shared.tenancy.quotas import RATES, STORED, Quota
from tests.frontend.admission.test_admission import PATH, served

VECTOR = [1.0, 0.0]
RECORD: dict[str, Any] = {"ids": ["a"], "embeddings": [VECTOR]}
QUERY: dict[str, Any] = {"query_embeddings": [VECTOR], "n_results": 1}
LARGE: Final = "x" * 21

REFUSED: Final[dict[Quota, list[tuple[int, str, dict[str, Any]]]]] = {
    Quota.IDS: [
        (1, "upsert", {"ids": ["a", "b"], "embeddings": [VECTOR, VECTOR]}),
        (1, "get", {"ids": ["a", "b"]}),
        (1, "delete", {"ids": ["a", "b"]}),
    ],
    Quota.DIMENSIONS: [(1, "upsert", RECORD)],
    Quota.ID_BYTES: [(20, "upsert", RECORD | {"ids": [LARGE]})],
    Quota.DOCUMENT_BYTES: [(20, "upsert", RECORD | {"documents": [LARGE]})],
    Quota.URI_BYTES: [(20, "add", RECORD | {"uris": [LARGE]})],
    Quota.METADATA_KEYS: [(1, "upsert", RECORD | {"metadatas": [{"a": 1, "b": 2}]})],
    Quota.METADATA_KEY_BYTES: [(20, "upsert", RECORD | {"metadatas": [{LARGE: 1}]})],
    Quota.METADATA_VALUE_BYTES: [(20, "upsert", RECORD | {"metadatas": [{"a": LARGE}]})],
    Quota.QUERY_VECTORS: [(1, "query", QUERY | {"query_embeddings": [VECTOR, VECTOR]})],
    Quota.RESULTS: [
        (1, "query", QUERY | {"n_results": 2}),
        (1, "get", {"limit": 2}),
        (1, "get", {}),
        (1, "get", {"ids": ["a", "b"]}),
        (1, "search", {"searches": [{"limit": {"limit": 2}}]}),
        (1, "search", {"searches": [{}]}),
        (1, "conditional/get", {"limit": 2}),
    ],
    Quota.FILTER_CLAUSES: [(1, "get", {"where": {"$and": [{"a": 1}, {"b": 1}]}})],
    Quota.FILTER_VALUES: [(1, "query", QUERY | {"where": {"a": {"$in": [1, 2]}}})],
    Quota.REGEXES: [(0, "get", {"where_document": {"$regex": "a"}})],
    Quota.REGEX_BYTES: [(20, "get", {"where_document": {"$regex": LARGE}})],
    Quota.SEARCHES: [(1, "search", {"searches": [{}, {}]})],
    Quota.FACETS: [(1, "search", {"searches": [{"facets": {"keys": ["a", "b"]}}]})],
}
"""For a quota: its value, the route, and a body that is over it."""

ELSEWHERE: Final = {Quota.NAME_BYTES, Quota.COLLECTION_BYTES}
"""Quotas of routes that need a catalog: tests/tenancy."""

CASES = [(quota, *case) for quota, cases in REFUSED.items() for case in cases]


def has_positions(rows: Any, count: int) -> None:
    """The collection has had so many operations."""
    resolve = rows.resolve

    async def changed(*args: Any) -> Collection:
        found: Collection = await resolve(*args)
        return dataclasses.replace(found, head=count, dimension=2)

    async def refresh(collection: Collection) -> Collection:
        return collection

    rows.resolve, rows.refresh = changed, refresh


@pytest.mark.parametrize(("quota", "most", "route", "body"), CASES)
async def test_what_is_over_a_quota_is_refused_by_its_wire_form(
    quota: Quota, most: int, route: str, body: dict[str, Any]
) -> None:
    async with served({quota: most}) as (client, context, _):
        has_positions(context.rows, 1000)
        refused = await client.post(f"{PATH}/{route}", json=body)
        assert (refused.status_code, refused.json()["error"]) == (422, "ChromaError"), refused.text
        action = {"conditional/get": "Get"}.get(route, route.capitalize())
        message = refused.json()["message"]
        assert message.startswith("Quota exceeded: '"), message
        assert f"' exceeded quota limit for action '{action}': current usage of " in message
        assert message.endswith(f" exceeds limit of {most}")
    async with served({quota: 1000}) as (client, context, _):
        has_positions(context.rows, 1000)
        assert (await client.post(f"{PATH}/{route}", json=body)).status_code != 422


def test_every_quota_that_lowers_a_limit_is_tried() -> None:
    assert LOWERED | {Quota.RESULTS} == REFUSED.keys() | ELSEWHERE
    assert not RATES & LOWERED
    assert not STORED & LOWERED


async def test_the_limits_of_the_process_stay_limits() -> None:
    async with served({Quota.IDS: 10**9, Quota.RESULTS: 5}) as (client, _, _clock):
        refused = await client.post(PATH + "/query", json=QUERY | {"query_embeddings": [VECTOR] * 20_000})
        assert (refused.status_code, refused.json()["error"]) == (400, "InvalidArgumentError")


async def test_a_collection_with_less_than_the_quota_is_got_whole() -> None:
    async with served({Quota.RESULTS: 1000}) as (client, context, _):
        has_positions(context.rows, 1000)
        for route, body in (("get", {}), ("get", {"limit": 10**6}), ("query", QUERY | {"n_results": 10**6})):
            assert (await client.post(f"{PATH}/{route}", json=body)).status_code == 200
