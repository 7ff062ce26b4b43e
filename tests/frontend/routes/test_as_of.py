"""`as_of` in requests: strictly validated, passed on as a position, and without effect where it is not given."""

from __future__ import annotations

from typing import Any

import httpx
import pytest

from shared.errors import StaleRead
from tests.frontend.fakes import COLLECTION_ID, FakeWorkers, Row, new_collection, new_context
from tests.frontend.server import COLLECTIONS, client_of

BASE = f"{COLLECTIONS}/{COLLECTION_ID}"
QUERY = {"query_embeddings": [[1, 0]]}
TIME = "2026-11-30T18:35:00.2509Z"
TIME_MS = 1_796_063_700_250


async def asked(action: str, body: dict[str, Any], as_of: Any, context: Any = None, shards: int = 1) -> httpx.Response:
    """The answer to a request with `as_of`."""
    context = context or new_context(new_collection(shards=shards, dimension=2), rows_of(shards))
    async with client_of(context) as client:
        if action == "count":
            return await client.get(f"{BASE}/count", params={**body, "as_of": as_of})
        return await client.post(f"{BASE}/{action}", json={**body, "as_of": as_of})


def rows_of(shards: int) -> FakeWorkers:
    return FakeWorkers([[Row(i + 1, (i, 0))] for i in range(shards)])


@pytest.mark.parametrize("shards", [1, 3])
@pytest.mark.parametrize(("action", "body"), [("count", {}), ("get", {}), ("get", {"limit": 2}), ("query", QUERY)])
@pytest.mark.parametrize(("as_of", "position"), [(42, 42), (TIME, 55), ("2026-11-30T19:35:00.250+01:00", 55)])
async def test_every_call_to_a_worker_is_as_of_the_position(
    action: str, body: dict[str, Any], as_of: Any, position: int, shards: int
) -> None:
    workers = rows_of(shards)
    context = new_context(new_collection(shards=shards, dimension=2), workers)
    answer = await asked(action, body, as_of, context)
    assert answer.status_code == 200
    assert {(request.shard.as_of, request.shard.past) for request in workers.asked} == {(position, True)}
    assert set(context.kept.times_asked) <= {TIME_MS}


@pytest.mark.parametrize(("action", "body"), [("get", {}), ("query", QUERY), ("get", {"as_of": None})])
async def test_without_it_nothing_is_of_the_past(action: str, body: dict[str, Any]) -> None:
    workers = rows_of(1)
    async with client_of(new_context(new_collection(dimension=2), workers)) as client:
        assert (await client.post(f"{BASE}/{action}", json=body)).status_code == 200
    assert [(request.shard.as_of, request.shard.past) for request in workers.asked] == [(None, False)]


WRONG_TEXTS = [
    "", "now", "2026-11-30", "2026-11-30T18:35:00", "2026-13-30T18:35:00Z", "2026-11-30 18:35:00Z", "12:00", "-1",
    "2026-11-30T18:35:00+0100", "2026-11-30T18:35:00.1234567890Z", "9" * 30, "\uff12\uff1026-11-30T18:35:00Z",
]  # fmt: skip


@pytest.mark.parametrize("as_of", WRONG_TEXTS)
@pytest.mark.parametrize(("action", "body"), [("count", {}), ("get", {}), ("query", QUERY)])
async def test_a_text_that_is_no_time_is_refused(action: str, body: dict[str, Any], as_of: str) -> None:
    answer = await asked(action, body, as_of)
    assert answer.status_code == 400
    assert "RFC 3339" in answer.json()["message"]


@pytest.mark.parametrize("as_of", [-1, 1.5, True, [1], {}, 2**63])
@pytest.mark.parametrize(("action", "body"), [("get", {}), ("query", QUERY), ("search", {"searches": []})])
async def test_a_member_of_another_type_has_the_wrong_shape(action: str, body: dict[str, Any], as_of: Any) -> None:
    assert (await asked(action, body, as_of)).status_code == 422


@pytest.mark.parametrize("as_of", [101, "2200-01-01T00:00:00Z"])
async def test_what_is_still_to_come_is_refused(as_of: Any) -> None:
    answer = await asked("get", {}, as_of)
    assert answer.status_code == 400
    assert "still to come" in answer.json()["message"]


async def test_a_past_that_is_not_kept_is_412_and_names_what_is_left() -> None:
    workers = rows_of(3)
    workers.failures = [StaleRead("compacted")]
    context = new_context(new_collection(shards=3, dimension=2), workers)
    answer = await asked("get", {}, 5, context)
    assert (answer.status_code, answer.json()["error"]) == (412, "StaleReadError")
    assert "oldest position that is left is 7" in answer.json()["message"]
    assert "2023-11-14T22:13:20.123Z" in answer.json()["message"]


async def test_a_level_that_does_not_see_the_log_is_refused_beside_it() -> None:
    assert (await asked("count", {"read_level": "index_only"}, 5)).status_code == 400
    assert (await asked("query", {**QUERY, "read_level": "index_only"}, 5)).status_code == 400


async def test_a_parameter_that_is_given_twice_is_refused() -> None:
    assert (await asked("count", {}, ["5", "6"])).status_code == 400


async def test_reads_of_a_transaction_are_as_of_their_token_alone() -> None:
    assert (await asked("conditional/get", {}, 5)).status_code == 400
