"""Short answers are made on the event loop, without a thread."""

from __future__ import annotations

import asyncio
import threading
from pathlib import Path
from typing import Any

import orjson
import pytest

from queryworker.calls.api import INLINE_BYTES_MAX
from queryworker.query import answers
from shared.records import answers as record_answers
from shared.records.columns import Columns
from shared.records.model import Include, Op
from shared.records.selection import Selection
from shared.redis.keys import Keys
from shared.rpc import messages
from tests.queryworker.world import DirectCall, open_world
from tests.redis_server import RedisServer
from tests.shared.memtable.model import Operation

ROWS = [Operation(Op.ADD, f"r{i}", (float(i), 1.0), f"doc {i}", {"n": i}) for i in range(50)]


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


async def test_long_answers_are_made_in_threads_whatever_else_waits(
    valkey_server: RedisServer, keys: Keys, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    makers: dict[str, list[bool]] = {}
    encode = record_answers.encode_get

    def noted(columns: Columns, *arguments: Any) -> bytes:
        makers.setdefault(columns.ids[0], []).append(threading.current_thread() is threading.main_thread())
        return encode(columns, *arguments)

    monkeypatch.setattr(answers, "encode_get", noted)
    long, half = "x" * (INLINE_BYTES_MAX + 1), "y" * (INLINE_BYTES_MAX // 2)
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
            assert [body["documents"] for body in found] == [[text] for text in texts.values()]
            assert makers == {"long": [False], "half": [True], "other half": [False], "short": [True]}, place
            await world.compact()
            await world.load_newest_manifests()
