"""Conditional transactions over a fake log and fake workers: what is read as of when, and when a commit is refused."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from typing import Any

import httpx
import pytest

from frontend.write import transactions
from shared.cluster.placement import Layout, shard_of
from shared.errors import ConditionalWriteConflict, Gone, StaleGeneration, StaleRead
from shared.limits import READ_IDS_MAX
from shared.log.condition import CONFLICT, Condition, IdsRead, Undecided
from tests.frontend.fakes import COLLECTION_ID, FakeWorkers, Row, new_collection, new_context
from tests.frontend.server import client_of

BASE = f"/api/v2/tenants/default_tenant/databases/default_database/collections/{COLLECTION_ID}"
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
    response = await client.post(f"{BASE}/conditional/{route}", json=body)
    return response.status_code, response.json()


def delete_of(*ids: str) -> dict[str, Any]:
    return {"operation": "delete", "payload": {"ids": list(ids), "where": None, "where_document": None, "limit": None}}


def upsert_of(*ids: str, **columns: Any) -> dict[str, Any]:
    return {"operation": "upsert", "payload": {"ids": list(ids), "embeddings": [[0, 1]] * len(ids), **columns}}


# ---- reads


async def test_the_first_read_takes_the_head_as_its_token(client: Client, context: Any) -> None:
    status, answer = await post(client, "get", {"ids": ["id2", "id9"], "include": ["documents"]})
    assert status == 200
    assert answer == {
        "ids": ["id2"],
        "embeddings": None,
        "documents": ["d2"],
        "uris": None,
        "metadatas": None,
        "include": ["documents"],
        "read_token": 100,
    }
    assert context.workers.asked[0].shard.as_of == 100


async def test_later_reads_are_as_of_the_token(client: Client, context: Any) -> None:
    status, answer = await post(client, "get", {"ids": ["id1"], "read_token": 42})
    assert (status, answer["read_token"]) == (200, 42)
    assert context.workers.asked[0].shard.as_of == 42


@pytest.mark.parametrize("page", [{}, {"limit": 2}])
async def test_all_shards_are_read_as_of_the_token(client: Client, context: Any, page: dict[str, int]) -> None:
    context.rows.collection = new_collection(dimension=2, shards=3)
    context.workers.shards = [[Row(1, (0, 0))], [Row(2, (0, 0))], [Row(3, (0, 0))]]
    status, answer = await post(client, "get", page)
    assert (status, answer["ids"]) == (200, ["id1", "id2", "id3"][: page.get("limit")])
    assert {asked.shard.as_of for asked in context.workers.asked} == {100}


async def test_a_first_read_that_was_overtaken_by_a_compaction_begins_again(client: Client, context: Any) -> None:
    context.log.positions = [range(51), range(101)]
    context.workers.failures = [StaleRead("compacted")]
    assert (await post(client, "get", {}))[1]["read_token"] == 100


async def test_a_snapshot_that_nobody_has_any_more_is_stale(client: Client, context: Any) -> None:
    context.workers.failures = [StaleRead("compacted")]
    status, answer = await post(client, "get", {"read_token": 42})
    assert (status, answer["error"]) == (412, "StaleReadError")


@pytest.mark.parametrize("token", [10, 101, 2**63 - 1])
async def test_a_token_from_before_a_restoration_or_of_nobody_is_stale(
    client: Client, context: Any, token: int
) -> None:
    context.log.positions = [range(50, 101)]
    status, answer = await post(client, "get", {"read_token": token})
    assert (status, answer["error"]) == (412, "StaleReadError")


@pytest.mark.parametrize("token", [-1, 2**63, "1", 1.5, True])
async def test_a_token_is_a_position(client: Client, token: Any) -> None:
    assert (await post(client, "get", {"read_token": token}))[0] == 422
    assert (await post(client, "commit", {"read_token": token, "operations": [upsert_of("a")]}))[0] == 422


# ---- commits


async def test_a_commit_is_one_append_of_all_operations(client: Client, context: Any) -> None:
    update = {"operation": "update", "payload": {"ids": ["id2"], "metadatas": [{"k": 1}], "embeddings": None}}
    add = {"operation": "add", "payload": {"ids": ["x", "y"], "embeddings": [[1, 2], [3, 4]]}}
    operations = [add, update, upsert_of("z", documents=["zed"]), delete_of("id1")]
    body = {"read_token": 42, "read_ids": ["x", "y", "id2", "id1", "x"], "operations": operations}
    assert await post(client, "commit", body) == (200, {"first_inserted_record_offset": 1, "record_count": 5})
    (append,) = context.log.appends
    rows = append.parts[0]
    assert [(row["op"], row["id"]) for row in rows] == [(0, "x"), (0, "y"), (1, "id2"), (2, "z"), (3, "id1")]
    assert [row["embedding"] for row in rows] == [[1, 2], [3, 4], None, [0, 1], None]
    assert (rows[2]["metadata"], rows[3]["document"]) == ('{"k":1}', "zed")
    assert (append.dimension, append.new_keys) == (2, [("k", "int")])
    assert append.condition == Condition(42, {0: IdsRead(42, ["id1", "id2", "x", "y"])})


@pytest.mark.parametrize("token", [None, 7])
async def test_without_reads_there_is_no_condition(client: Client, context: Any, token: int | None) -> None:
    body = {"read_token": token, "read_ids": [], "operations": [upsert_of("z")]}
    assert (await post(client, "commit", body))[0] == 200
    assert context.log.appends[0].condition is None


async def test_what_was_read_is_asked_of_its_shards(client: Client, context: Any) -> None:
    context.rows.collection = replace(new_collection(dimension=2, shards=3), layout=Layout(5, 3))
    ids = [f"id{i}" for i in range(10)]
    body = {"read_token": 42, "read_ids": ids, "operations": [upsert_of("z")]}
    assert (await post(client, "commit", body))[0] == 200
    reads = context.log.appends[0].condition.reads
    for shard, read in reads.items():
        assert {5 + int(home) for home in shard_of(read.ids, 3)} == {shard}
    assert sorted(id_ for read in reads.values() for id_ in read.ids) == ids


async def test_a_conflict_is_409_and_is_not_tried_again(client: Client, context: Any) -> None:
    context.log.failures = [ConditionalWriteConflict(CONFLICT)]
    body = {"read_token": 42, "read_ids": ["a"], "operations": [upsert_of("z")]}
    assert await post(client, "commit", body) == (409, {"error": "ConditionalWriteConflictError", "message": CONFLICT})
    assert len(context.log.appends) == 1


async def committed_in_doubt(client: Client, context: Any, read_ids: Sequence[str], token: int) -> int:
    """The status of a commit that the log cannot decide about at first."""
    context.log.failures = [Undecided([0])]
    body = {"read_token": token, "read_ids": list(read_ids), "operations": [upsert_of("z")]}
    return (await post(client, "commit", body))[0]


async def test_in_doubt_a_worker_proves_that_nothing_changed(client: Client, context: Any) -> None:
    assert await committed_in_doubt(client, context, ["id1", "nobody"], 42) == 200
    first, second = context.log.appends
    assert first.request_id == second.request_id
    assert second.condition == Condition(42, {0: IdsRead(100, ["id1", "nobody"])})
    now, then = context.workers.asked
    assert (now.shard.as_of, now.written, now.selection.ids) == (None, True, ["id1", "nobody"])
    assert (then.shard.as_of, then.selection.ids) == (42, ["nobody"])


async def test_in_doubt_what_was_written_at_the_token_or_later_is_a_conflict(client: Client, context: Any) -> None:
    assert await committed_in_doubt(client, context, ["id4"], 5) == 200
    assert await committed_in_doubt(client, context, ["id4"], 4) == 409
    assert await committed_in_doubt(client, context, ["id4", "id5"], 5) == 409


async def test_in_doubt_what_has_gone_is_a_conflict(client: Client, context: Any) -> None:
    get = context.workers.get

    async def id3_has_gone(request: Any) -> Any:
        context.workers.shards = [[Row(i, (0, 0)) for i in (1, 2, 3) if request.shard.as_of or i != 3]]
        return await get(request)

    context.workers.get = id3_has_gone
    assert await committed_in_doubt(client, context, ["id3"], 42) == 409


async def test_in_doubt_nobody_knows_what_was_absent_when_the_snapshot_is_gone(client: Client, context: Any) -> None:
    context.workers.failures = [StaleRead("compacted")]
    assert await committed_in_doubt(client, context, ["nobody"], 42) == 409
    context.workers.failures = [StaleRead("compacted")]
    assert await committed_in_doubt(client, context, ["id1"], 42) == 200


async def test_a_commit_that_stays_in_doubt_backs_off(client: Client, context: Any) -> None:
    context.log.failures = [Undecided([0])] * (transactions.PROOFS_MAX + 1)
    body = {"read_token": 42, "read_ids": ["id1"], "operations": [upsert_of("z")]}
    status, answer = await post(client, "commit", body)
    assert (status, answer["error"]) == (429, "Backoff")


async def test_with_other_shards_the_condition_begins_at_the_token(client: Client, context: Any) -> None:
    context.rows.current = replace(new_collection(dimension=2, shards=3), layout=Layout(1, 3), generation=2)
    context.log.failures = [Undecided([0]), StaleGeneration("rebuilt")]
    body = {"read_token": 42, "read_ids": ["id1"], "operations": [upsert_of("z")]}
    assert (await post(client, "commit", body))[0] == 200
    home = 1 + int(shard_of(["id1"], 3)[0])
    assert context.log.appends[-1].condition == Condition(42, {home: IdsRead(42, ["id1"])})
    assert len({append.request_id for append in context.log.appends}) == 1


# ---- refused


REFUSED: list[tuple[dict[str, Any], int, str]] = [
    ({"operations": []}, 400, "at least one operation"),
    ({"operations": [{"operation": "add", "payload": {"ids": [], "embeddings": []}}]}, 400, "at least one operation"),
    ({}, 422, "operations"),
    ({"operations": [{"operation": "get", "payload": {}}]}, 422, "get"),
    ({"operations": [{"operation": "add", "payload": []}]}, 422, "object"),
    ({"operations": [{"operation": "add", "payload": {"ids": ["a"]}}]}, 422, "embeddings"),
    ({"operations": [delete_of("a"), delete_of()]}, 400, "transactional predicate deletes are not supported"),
    ({"operations": [{"operation": "delete", "payload": {"ids": ["a"], "limit": 1}}]}, 400, "predicate deletes"),
    ({"operations": [{"operation": "delete", "payload": {"where": {"a": 1}}}]}, 400, "predicate deletes"),
    ({"operations": [upsert_of("a", "")]}, 400, "Empty ID"),
    ({"operations": [upsert_of("a", documents=[])]}, 400, "Inconsistent number"),
    ({"operations": [upsert_of("a", metadatas=[{"#k": 1}])]}, 400, "Invalid metadata at index 0"),
    ({"operations": [upsert_of("a", embeddings=[[1]])]}, 400, "expecting embedding with dimension of 2, got 1"),
    ({"operations": [upsert_of("a")], "read_ids": ["a"]}, 400, "read_token"),
    ({"operations": [upsert_of("a")], "read_ids": [""], "read_token": 1}, 400, "Empty ID"),
    ({"operations": [upsert_of("a")], "read_ids": None}, 422, "read_ids"),
    ({"operations": [upsert_of("a")], "read_ids": ["a"] * (READ_IDS_MAX + 1), "read_token": 1}, 400, "100000 ids"),
]


@pytest.mark.parametrize(("body", "status", "text"), REFUSED)
async def test_what_is_refused_appends_nothing(
    client: Client, context: Any, body: dict[str, Any], status: int, text: str
) -> None:
    got, answer = await post(client, "commit", body)
    assert got == status
    assert text in answer["message"]
    assert not context.log.appends


async def test_all_embeddings_of_a_commit_have_one_width(client: Client, context: Any) -> None:
    context.rows.collection = new_collection()
    status, answer = await post(client, "commit", {"operations": [upsert_of("a"), upsert_of("b", embeddings=[[1]])]})
    assert (status, answer["message"]) == (400, "Inconsistent dimensions in provided embeddings")
    assert not context.log.appends


async def test_a_collection_that_has_gone_is_not_found(client: Client, context: Any) -> None:
    context.log.failures = [Gone("deleted")]
    context.rows.current = None
    assert (await post(client, "commit", {"operations": [upsert_of("a")]}))[0] == 404
