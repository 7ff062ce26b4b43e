"""Jobs that begin while the log is being asked, and answers given without a thread."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import orjson
import pytest

from queryworker.api import LIGHT_BYTES_MAX
from queryworker.query import answers
from shared.records import answers as record_answers
from shared.records.columns import Columns
from shared.records.model import Include, Op
from shared.records.selection import Selection
from shared.redis.keys import Keys
from shared.rpc import messages
from tests.queryworker.truth import query_request
from tests.queryworker.world import DirectCall, World, open_world
from tests.redis_server import RedisServer
from tests.shared.memtable.model import Operation

ROWS = [Operation(Op.ADD, f"r{i}", (float(i), 1.0), f"doc {i}", {"n": i}) for i in range(50)]


class _Searches:
    """The snapshots' positions that queries were searched in, in order."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.positions: list[int] = []
        self.begun = threading.Event()
        together = answers.query_answers

        def noted(reading: Any, requests: Sequence[Any]) -> list[bytes]:
            self.positions.append(reading.view.position)
            self.begun.set()
            return together(reading, requests)

        monkeypatch.setattr(answers, "query_answers", noted)


async def _held_query(world: World, searches: _Searches) -> DirectCall:
    """A query that has searched early, while the look at the log is held."""
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


async def test_an_early_answer_leaves_when_the_log_has_nothing_new(
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


async def test_an_early_answer_is_thrown_away_when_something_was_written_before_the_request(
    valkey_server: RedisServer, keys: Keys, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Promise 4: the log is asked after the request came, and the answer has what was acknowledged until then."""
    searches = _Searches(monkeypatch)
    async with open_world(valkey_server.url, keys, tmp_path) as world:
        before = await world.write(ROWS)
        call = await _held_query(world, searches)
        after = await world.write([Operation(Op.ADD, "nearer", (4.2, 1.0), "", {})])
        world.worker.log.open.set()
        assert b"nearer" in await call.outcome
        assert searches.positions == [before, after]


async def test_no_query_begins_early_while_writes_go_on(
    valkey_server: RedisServer, keys: Keys, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    searches = _Searches(monkeypatch)
    async with open_world(valkey_server.url, keys, tmp_path) as world:
        request = query_request(world, [(4.2, 1.0)], 1)
        for row in ROWS[:12]:
            await world.write([row])
            await world.worker.query(request)
        assert searches.positions[-10:] == list(range(4, 14))


async def test_few_records_by_id_and_small_writes_need_no_thread(
    valkey_server: RedisServer, keys: Keys, tmp_path: Path
) -> None:
    async with open_world(valkey_server.url, keys, tmp_path) as world:
        await world.write(ROWS)
        request = messages.GetRequest(world.shard(), Selection(ids=["r7", "r3", "none"]), documents=True)
        await world.worker.get(request)
        busy = threading.Event()
        jobs = [asyncio.create_task(world.worker.threads.run(busy.wait, 10)) for _ in range(2)]
        await world.write([Operation(Op.UPSERT, "r3", (0.0, 1.0), "another", {})])
        async with asyncio.timeout(5):
            found = await world.worker.get(request)
        assert found.columns.ids == ["r3", "r7"]
        assert found.columns.documents == ["another", "doc 7"]
        busy.set()
        await asyncio.gather(*jobs)


async def test_long_answers_are_made_in_threads_whoever_else_waits(
    valkey_server: RedisServer, keys: Keys, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    makers: dict[str, list[bool]] = {}
    encode = record_answers.encode_get

    def noted(columns: Columns, *arguments: Any) -> bytes:
        makers.setdefault(columns.ids[0], []).append(threading.current_thread() is threading.main_thread())
        return encode(columns, *arguments)

    monkeypatch.setattr(answers, "encode_get", noted)
    long, half = "x" * (LIGHT_BYTES_MAX + 1), "y" * (LIGHT_BYTES_MAX // 2)
    async with open_world(valkey_server.url, keys, tmp_path) as world:
        texts = {"long": long, "half": half, "other half": half, "short": "z"}
        await world.write([Operation(Op.ADD, id_, (0.0, 1.0), text, {}) for id_, text in texts.items()])
        for place in ("tail", "segment"):
            makers.clear()
            calls = [
                DirectCall(
                    messages.GetRequest(
                        world.shard(), Selection(ids=[id_]), documents=True, include=[Include.DOCUMENTS]
                    )
                )
                for id_ in texts
            ]
            world.worker.api.methods()["get"](calls)
            found = [orjson.loads(await call.outcome) for call in calls]
            assert [one["documents"] for one in found] == [[text] for text in texts.values()]
            assert makers == {"long": [False], "half": [True], "other half": [False], "short": [True]}, place
            await world.compact()
            await world.settled()
