"""Calls that came together: shared work, separate fates."""

from __future__ import annotations

import asyncio
import threading
from pathlib import Path
from typing import Any

import msgspec
import pytest

from queryworker.calls import api
from queryworker.query import answers
from queryworker.query.batches import FILTERED_VECTORS_MAX, batches
from shared.errors import InvalidArgument
from shared.records.model import Include, Op
from shared.records.selection import Selection
from shared.records.where import (
    ArrayContains,
    Compare,
    MetadataCompare,
    MetadataIn,
)
from shared.redis.keys import Keys
from shared.rpc import messages
from tests.queryworker.truth import query_request
from tests.queryworker.world import DirectCall, World, open_world
from tests.redis_server import RedisServer
from tests.shared.memtable.model import Operation

ROWS = [Operation(Op.ADD, f"r{i}", (float(i), 1.0), f"doc {i}", {"n": i}) for i in range(50)]
OTHER = MetadataIn("n", [1, 5, 9])
FILTER = Selection(where=MetadataCompare("n", Compare.GTE, 40))


async def test_filtered_queries_answered_together_are_answered_as_alone(
    valkey_server: RedisServer, keys: Keys, tmp_path: Path
) -> None:
    async with open_world(valkey_server.url, keys, tmp_path) as world:
        await world.write(ROWS)
        wheres = [FILTER.where, MetadataCompare("n", Compare.EQ, 7), OTHER, OTHER, MetadataCompare("n", Compare.GT, 99)]
        requests = [
            query_request(world, [(float(3 * number), 1.0)], 3, selection=Selection(where=where))
            for number, where in enumerate(wheres * 3)
        ]
        assert max(map(len, batches(requests))) == FILTERED_VECTORS_MAX
        alone = [await world.worker.body("query", request) for request in requests]
        assert await asyncio.gather(*(call.outcome for call in _serve(world, *requests))) == alone


async def test_filters_that_differ_in_the_type_of_a_value_alone_are_not_mixed_up(
    valkey_server: RedisServer, keys: Keys, tmp_path: Path
) -> None:
    """In Python, 1, 1.0 and True are equal."""
    values = [1, True, 1.0, 1, True]
    async with open_world(valkey_server.url, keys, tmp_path) as world:
        await world.write([
            Operation(Op.ADD, name, (number, 1.0), None, {"v": value, "l": [value]})
            for number, (name, value) in enumerate({"int": 1, "bool": True, "float": 1.5}.items())
        ])  # fmt: skip
        for where in (
            lambda value: MetadataCompare("v", Compare.EQ, value),
            lambda value: MetadataIn("v", [value]),
            lambda value: ArrayContains("l", value),
        ):
            requests = [
                msgspec.structs.replace(query_request(world, [(0.0, 1.0)], 3), selection=Selection(where=where(value)))
                for value in values
            ]
            alone = [(await world.worker.query(request)).columns.ids for request in requests]
            calls = [DirectCall(request) for request in requests]
            world.worker.methods["query"](calls)
            together = [msgspec.msgpack.decode(await call.outcome, type=messages.QueryResponse) for call in calls]
            assert [found.columns.ids for found in together] == alone
            assert alone[0] != alone[1]


def _serve(world: World, *requests: messages.QueryRequest) -> list[DirectCall]:
    calls = [DirectCall(request) for request in requests]
    world.worker.methods["query"](calls)
    return calls


@pytest.mark.parametrize("include", [None, [Include.DISTANCES, Include.METADATAS, Include.EMBEDDINGS]])
async def test_queries_answered_together_are_answered_as_alone_after_one_currency_check(
    valkey_server: RedisServer, keys: Keys, tmp_path: Path, include: list[Include] | None
) -> None:
    async with open_world(valkey_server.url, keys, tmp_path) as world:
        await world.write(ROWS)
        requests = [
            msgspec.structs.replace(query_request(world, vectors, k), include=include)
            for k in (3, 0, 100)
            for vectors in ([(4.2, 1.0)], [(8.0, 0.0), (3.0, 3.0)], [(44.0, 1.0)])
        ]
        alone = [await world.worker.body("query", request) for request in requests]
        world.worker.log.reads = 0
        assert await asyncio.gather(*(call.outcome for call in _serve(world, *requests))) == alone
        assert world.worker.log.reads == 1


async def test_a_call_that_fails_fails_alone(
    valkey_server: RedisServer, keys: Keys, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with open_world(valkey_server.url, keys, tmp_path) as world:
        await world.write(ROWS)
        good = query_request(world, [(4.2, 1.0)], 3)
        wide = query_request(world, [(4.2, 1.0, 1.0)], 3)
        ids = query_request(world, [(1.0, 1.0)], 1, selection=Selection(ids=["nobody"]))
        unknown = msgspec.structs.replace(ids, include=[])
        garbage = DirectCall(good)
        garbage.payload = memoryview(b"\xc1")
        calls = [DirectCall(good), DirectCall(wide), garbage, DirectCall(unknown), DirectCall(good)]
        world.worker.methods["query"](calls)
        outcomes = await asyncio.gather(*(call.outcome for call in calls), return_exceptions=True)
        assert [type(outcome) for outcome in outcomes[1:4]] == [InvalidArgument] * 3
        assert outcomes[0] == outcomes[4] == await world.worker.body("query", good)

        together = answers.query_answers

        def at_fault(snapshot: Any, requests: Any) -> list[messages.QueryResponse | bytes]:
            if any(request.embeddings == good.embeddings for request in requests):
                raise RuntimeError("one of them")
            return together(snapshot, requests)

        monkeypatch.setattr(answers, "query_answers", at_fault)
        methods = world.worker.api.methods()
        calls = [DirectCall(good), DirectCall(query_request(world, [(9.0, 1.0)], 3))]
        methods["query"](calls)
        outcomes = await asyncio.gather(*(call.outcome for call in calls), return_exceptions=True)
        assert [type(outcome) for outcome in outcomes] == [RuntimeError, bytes]


async def test_a_slow_call_does_not_hold_up_those_it_came_with(
    valkey_server: RedisServer, keys: Keys, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with open_world(valkey_server.url, keys, tmp_path) as world:
        await world.write(ROWS)
        release, together = threading.Event(), answers.query_answers

        def slow_filter(snapshot: Any, requests: Any) -> list[messages.QueryResponse | bytes]:
            if requests[0].selection == FILTER:
                release.wait(10)
            return together(snapshot, requests)

        monkeypatch.setattr(answers, "query_answers", slow_filter)
        plain = query_request(world, [(4.2, 1.0)], 3)
        calls = [DirectCall(query_request(world, [(4.2, 1.0)], 3, selection=FILTER)), *map(DirectCall, [plain] * 3)]
        world.worker.api.methods()["query"](calls)
        async with asyncio.timeout(5):
            await asyncio.gather(*(call.outcome for call in calls[1:]))
        assert not calls[0].done
        release.set()
        await calls[0].outcome


async def test_work_that_nobody_waits_for_any_more_is_not_begun(
    valkey_server: RedisServer, keys: Keys, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with open_world(valkey_server.url, keys, tmp_path) as world:
        await world.write(ROWS)
        seen: list[int] = []
        together = answers.query_answers

        def counted(snapshot: Any, requests: Any) -> list[messages.QueryResponse | bytes]:
            seen.append(len(requests))
            return together(snapshot, requests)

        monkeypatch.setattr(answers, "query_answers", counted)
        world.worker.log.open.clear()
        calls = [DirectCall(query_request(world, [(4.2, 1.0)], 3)) for _ in range(3)]
        world.worker.api.methods()["query"](calls)
        await world.worker.log.arrived.wait()
        calls[0].abandon()
        calls[2].abandon()
        world.worker.log.open.set()
        await calls[1].outcome
        assert seen == [1]


async def test_calls_that_cannot_be_batched_or_handed_to_threads_fail_and_are_not_left_unanswered(
    valkey_server: RedisServer, keys: Keys, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def at_fault(_requests: Any) -> list[list[int]]:
        raise RuntimeError("no batches")

    async with open_world(valkey_server.url, keys, tmp_path) as world:
        await world.write(ROWS)
        plain = query_request(world, [(4.2, 1.0)], 3)
        await world.worker.query(plain)
        with monkeypatch.context() as patched:
            patched.setattr(api, "batches", at_fault)
            call = DirectCall(plain)
            world.worker.api.methods()["query"]([call])
            with pytest.raises(RuntimeError, match="no batches"):
                await asyncio.wait_for(call.outcome, 5)
        await world.worker.threads.close()
        (call,) = _serve(world, plain)
        with pytest.raises(RuntimeError, match="closed"):
            await asyncio.wait_for(call.outcome, 5)
