"""Long answers are made chunk by chunk, each when its caller has taken the one before."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import orjson
import pytest

from queryworker.query import answers
from shared.errors import NotRepeated
from shared.records import chunked_answers
from shared.records.model import Include, Op
from shared.records.selection import Selection
from shared.redis.keys import Keys
from shared.rpc import messages
from tests.queryworker.world import DIMENSION, DirectCall, World, open_world
from tests.redis_server import RedisServer
from tests.shared.memtable.model import Operation

ROWS = 100
EVERYTHING = [Include.EMBEDDINGS, Include.DOCUMENTS, Include.METADATAS, Include.URIS]


@pytest.fixture(autouse=True)
def _small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(answers, "WHOLE_BYTES_MAX", 1000)
    monkeypatch.setattr(chunked_answers, "CHUNK_NUMBERS", 8 * DIMENSION)
    monkeypatch.setattr(chunked_answers, "CHUNK_BYTES", 100)


async def _filled(world: World) -> None:
    vector = [0.5] * (DIMENSION - 1)
    await world.write([Operation(Op.ADD, f"r{i}", (float(i), *vector), f"doc {i}", {"n": i}) for i in range(ROWS)])


def _get(world: World, include: list[Include], *, in_parts: bool) -> messages.GetRequest:
    return messages.GetRequest(
        world.shard(), documents=True, metadatas=True, uris=True, embeddings=True, include=include, in_parts=in_parts
    )


async def test_chunks_together_are_the_whole_answer(valkey_server: RedisServer, keys: Keys, tmp_path: Path) -> None:
    async with open_world(valkey_server.url, keys, tmp_path) as world:
        await _filled(world)
        for _ in ("tail", "segment"):
            whole = await world.worker.body("get", _get(world, EVERYTHING, in_parts=False))
            call = DirectCall(_get(world, EVERYTHING, in_parts=True))
            world.worker.methods["get"]([call])
            last = await call.outcome
            assert len(call.chunks) > ROWS // 8
            assert b"".join([*call.chunks, last]) == whole
            assert [row[0] for row in orjson.loads(whole)["embeddings"]] == [float(i) for i in range(ROWS)]
            await world.compact()
            await world.load_newest_manifests()


async def test_a_short_answer_comes_as_a_whole(valkey_server: RedisServer, keys: Keys, tmp_path: Path) -> None:
    async with open_world(valkey_server.url, keys, tmp_path) as world:
        await _filled(world)
        few = msgspec.structs.replace(_get(world, EVERYTHING, in_parts=True), limit=3)
        call = DirectCall(few)
        world.worker.methods["get"]([call])
        assert len(orjson.loads(await call.outcome)["documents"]) == 3
        assert call.chunks == []


async def test_texts_come_in_chunks_too(valkey_server: RedisServer, keys: Keys, tmp_path: Path) -> None:
    async with open_world(valkey_server.url, keys, tmp_path) as world:
        await _filled(world)
        for _ in ("tail", "segment"):
            texts = [Include.DOCUMENTS, Include.METADATAS]
            request = messages.GetRequest(
                world.shard(), documents=True, metadatas=True, uris=True, include=texts, in_parts=True
            )
            whole = await world.worker.body("get", msgspec.structs.replace(request, in_parts=False))
            call = DirectCall(request)
            world.worker.methods["get"]([call])
            last = await call.outcome
            assert len(call.chunks) > 5
            assert b"".join([*call.chunks, last]) == whole
            await world.compact()
            await world.load_newest_manifests()


async def test_an_answer_shows_one_state_whatever_is_written_while_it_is_read(
    valkey_server: RedisServer, keys: Keys, tmp_path: Path
) -> None:
    """Its chunks are made from the view that it began with, also when that has been replaced."""
    async with open_world(valkey_server.url, keys, tmp_path) as world:
        await _filled(world)
        whole = await world.worker.body("get", _get(world, EVERYTHING, in_parts=False))
        call = DirectCall(_get(world, EVERYTHING, in_parts=True))
        call.holds_back = True
        world.worker.methods["get"]([call])
        async with asyncio.timeout(10):
            while not call.chunks:  # noqa: ASYNC110 (threads are waited for)
                await asyncio.sleep(0)
        number = 0
        while not call.done:
            number += 1
            await world.write([Operation(Op.UPSERT, f"r{number}", (9.0,) * DIMENSION, "another", {"n": -1})])
            await world.write([Operation(Op.DELETE, f"r{number + 50}")])
            if number in (2, 4):
                await world.compact()
            await world.worker.count(messages.CountRequest(world.shard()))
            await world.load_newest_manifests()
            wanted, call.wanted = call.wanted, None
            if wanted is not None:
                wanted()
        assert number > 5
        assert b"".join([*call.chunks, await call.outcome]) == whole


async def test_a_chunk_is_made_when_the_one_before_was_taken(
    valkey_server: RedisServer, keys: Keys, tmp_path: Path
) -> None:
    async with open_world(valkey_server.url, keys, tmp_path) as world:
        await _filled(world)
        call = DirectCall(_get(world, EVERYTHING, in_parts=True))
        call.holds_back = True
        world.worker.methods["get"]([call])
        for number in range(1, 4):
            async with asyncio.timeout(10):
                while len(call.chunks) < number or not world.worker.threads.idle:  # noqa: ASYNC110
                    await asyncio.sleep(0)
            await asyncio.sleep(0.01)
            assert len(call.chunks) == number
            assert call.wanted is not None
            call.wanted()


async def test_nothing_more_is_made_for_who_has_gone(valkey_server: RedisServer, keys: Keys, tmp_path: Path) -> None:
    async with open_world(valkey_server.url, keys, tmp_path) as world:
        await _filled(world)
        call = DirectCall(_get(world, EVERYTHING, in_parts=True))
        world.worker.methods["get"]([call])
        async with asyncio.timeout(10):
            while not call.chunks:  # noqa: ASYNC110 (threads are waited for)
                await asyncio.sleep(0)
        call.abandon()
        seen = len(call.chunks)
        while not world.worker.threads.idle:  # noqa: ASYNC110
            await asyncio.sleep(0)
        assert len(call.chunks) == seen < ROWS // 8


async def test_a_first_chunk_that_fails_where_the_loop_makes_it_is_told_too(
    valkey_server: RedisServer, keys: Keys, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with open_world(valkey_server.url, keys, tmp_path) as world:
        await _filled(world)

        def fails(*_arguments: object) -> bytes:
            raise MemoryError("no room")

        monkeypatch.setattr(answers, "encode_get", fails)
        few = msgspec.structs.replace(_get(world, EVERYTHING, in_parts=True), selection=Selection(ids=["r1", "r2"]))
        call = DirectCall(few)
        world.worker.methods["get"]([call])
        with pytest.raises(NotRepeated, match="out of memory"):
            await asyncio.wait_for(call.outcome, 10)


async def test_a_chunk_that_fails_ends_the_call(
    valkey_server: RedisServer, keys: Keys, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with open_world(valkey_server.url, keys, tmp_path) as world:
        await _filled(world)
        inner: Callable[[Any], memoryview] = chunked_answers._inner
        made: list[object] = []

        def third_fails(values: object) -> memoryview:
            made.append(values)
            if len(made) == 3:
                raise MemoryError("no room")
            return inner(values)

        monkeypatch.setattr(chunked_answers, "_inner", third_fails)
        call = DirectCall(_get(world, EVERYTHING, in_parts=True))
        world.worker.methods["get"]([call])
        with pytest.raises(MemoryError):
            await call.outcome
        assert len(call.chunks) == 2
