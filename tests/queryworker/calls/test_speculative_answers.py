"""Answers that are made from the view at hand while the currency check is made."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Sequence
from pathlib import Path

import msgspec
import pytest

from queryworker.query import answers
from queryworker.query.answers import ReadContext
from shared.records.model import Op
from shared.redis.keys import Keys
from shared.rpc import messages
from tests.queryworker.truth import query_request
from tests.queryworker.world import DirectCall, World, open_world
from tests.redis_server import RedisServer
from tests.shared.memtable.model import Operation

ROWS = [Operation(Op.ADD, f"r{i}", (float(i), 1.0), f"doc {i}", {"n": i}) for i in range(50)]


class _Searches:
    """The positions of the read views that queries were searched in, in order."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.positions: list[int] = []
        self.begun = threading.Event()
        self.release = threading.Event()
        self.release.set()
        answer = answers.query_answers

        def noted(
            context: ReadContext, requests: Sequence[messages.QueryRequest]
        ) -> list[messages.QueryResponse | bytes]:
            self.positions.append(context.view.position)
            self.begun.set()
            self.release.wait(10)
            return answer(context, requests)

        monkeypatch.setattr(answers, "query_answers", noted)


async def _held_query(world: World, searches: _Searches) -> DirectCall:
    """A query that was answered speculatively, while the currency check is held."""
    request = query_request(world, [(4.2, 1.0)], 1)
    for _ in range(2):
        await world.worker.query(request)  # the second one finds the shard as it was
    searches.positions.clear()
    searches.begun.clear()
    log = world.worker.log
    log.open.clear()
    call = DirectCall(request)
    world.worker.api.methods()["query"]([call])
    await asyncio.to_thread(searches.begun.wait, 10)
    return call


async def test_a_speculative_answer_leaves_when_the_currency_check_finds_nothing_new(
    valkey_server: RedisServer, keys: Keys, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    searches = _Searches(monkeypatch)
    async with open_world(valkey_server.url, keys, tmp_path) as world:
        position = await world.write(ROWS)
        call = await _held_query(world, searches)
        barrier = threading.Barrier(2)  # nobody passes it before both threads have ended what they were doing
        await asyncio.gather(*(world.worker.threads.run(barrier.wait, 10) for _ in range(2)))
        assert not call.done
        world.worker.log.open.set()
        assert await call.outcome == await world.worker.body("query", query_request(world, [(4.2, 1.0)], 1))
        assert set(searches.positions) == {position}


async def test_a_speculative_answer_is_dropped_when_something_was_written_before_the_request(
    valkey_server: RedisServer, keys: Keys, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Promise 4: the check begins after the request came, and the answer has what was acknowledged until then."""
    searches = _Searches(monkeypatch)
    async with open_world(valkey_server.url, keys, tmp_path) as world:
        before = await world.write(ROWS)
        call = await _held_query(world, searches)
        after = await world.write([Operation(Op.ADD, "nearer", (4.2, 1.0), "", {})])
        world.worker.log.open.set()
        assert b"nearer" in await call.outcome
        assert searches.positions == [before, after]


async def test_no_answer_is_made_speculatively_while_writes_go_on(
    valkey_server: RedisServer, keys: Keys, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    searches = _Searches(monkeypatch)
    async with open_world(valkey_server.url, keys, tmp_path) as world:
        request = query_request(world, [(4.2, 1.0)], 1)
        for row in ROWS[:12]:
            await world.write([row])
            await world.worker.query(request)
        assert searches.positions[-10:] == list(range(4, 14))


async def test_batches_that_no_thread_took_up_are_not_answered_from_a_view_that_is_outdated(
    valkey_server: RedisServer, keys: Keys, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    searches = _Searches(monkeypatch)
    async with open_world(valkey_server.url, keys, tmp_path) as world:
        before = await world.write(ROWS)
        request = query_request(world, [(4.2, 1.0)], 1)
        for _ in range(2):
            await world.worker.query(request)
        searches.positions.clear()
        searches.release.clear()
        after = await world.write([Operation(Op.ADD, "nearer", (4.2, 1.0), "", {})])
        calls = [DirectCall(msgspec.structs.replace(request, explain=True)) for _ in range(6)]  # each a batch
        world.worker.api.methods()["query"](calls)
        view = world.served.views.newest
        assert view is not None
        async with asyncio.timeout(10):
            while view.position != after or len(searches.positions) < 2:  # noqa: ASYNC110 (threads are waited for)
                await asyncio.sleep(0.001)
        for _ in range(10):
            await asyncio.sleep(0)
        searches.release.set()
        for call in calls:
            assert b"nearer" in await call.outcome
        early = searches.positions.count(before)
        assert 1 <= early <= 2  # a second thread may have come to it when there was the newer view
        assert searches.positions == [before] * early + [after] * 6
