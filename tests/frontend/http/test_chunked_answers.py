"""Long answers are sent on as they come, as fast as the client takes them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
import orjson
import pytest

from frontend.app import build_app
from frontend.http.sending import SLOW_CLIENTS
from frontend.http.server import HttpServer, open_http_server
from frontend.read.gets import UNCHUNKED_ROWS_MAX
from shared.errors import Unavailable
from tests.frontend.fakes import (
    COLLECTION_ID,
    FakeLongAnswer,
    FakeWorkers,
    Row,
    new_collection,
    new_config,
    new_context,
)

GET = f"/api/v2/tenants/default_tenant/databases/default_database/collections/{COLLECTION_ID}/get"
WHOLE = {"include": ["embeddings", "documents"]}
ROWS = 400


@asynccontextmanager
async def _serving(workers: FakeWorkers, **settings: Any) -> AsyncIterator[str]:
    context = new_context(new_collection(dimension=2), workers)
    context.config = new_config(**settings)
    async with open_http_server(build_app(context), context.config.listener) as server:
        yield server.address


def _workers() -> FakeWorkers:
    return FakeWorkers([[Row(i, (float(i), 0.0)) for i in range(1, ROWS + 1)]])


async def _raw(address: str, version: str) -> bytes:
    host, _, port = address.rpartition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    body = orjson.dumps(WHOLE)
    writer.write(f"POST {GET} HTTP/{version}\r\nhost: localhost\r\ncontent-length: {len(body)}\r\n\r\n".encode() + body)
    try:
        return await asyncio.wait_for(reader.read(), 10)
    finally:
        writer.close()


def _check(answer: Any) -> None:
    assert answer["embeddings"] == [[float(i), 0.0] for i in range(1, ROWS + 1)]
    assert answer["documents"] == [f"d{i}" for i in range(1, ROWS + 1)]


async def test_a_long_answer_arrives_whole_and_the_connection_goes_on() -> None:
    workers = _workers()
    async with _serving(workers) as address, httpx.AsyncClient(base_url=f"http://{address}") as client:
        for _ in range(2):
            response = await client.post(GET, json=WHOLE)
            assert response.headers["transfer-encoding"] == "chunked"
            assert response.headers["content-type"] == "application/json"
            assert "content-length" not in response.headers
            _check(response.json())
        assert (await client.post(GET, json={"ids": ["r1"]})).status_code == 200
        assert [request.in_parts for request in workers.asked] == [True, True, False]


@pytest.mark.parametrize("body", [WHOLE | {"limit": UNCHUNKED_ROWS_MAX}, WHOLE | {"ids": ["r1"]}])
async def test_a_short_answer_says_how_long_it_is(body: dict[str, Any]) -> None:
    workers = _workers()
    async with _serving(workers) as address, httpx.AsyncClient(base_url=f"http://{address}") as client:
        response = await client.post(GET, json=body)
        assert int(response.headers["content-length"]) == len(response.content)
        assert not workers.asked[0].in_parts


async def test_an_old_client_reads_until_the_connection_is_closed() -> None:
    async with _serving(_workers()) as address:
        head, _, body = (await _raw(address, "1.0")).partition(b"\r\n\r\n")
        assert b"transfer-encoding" not in head.lower()
        _check(orjson.loads(body))


async def test_an_answer_of_which_a_chunk_is_missing_does_not_look_whole() -> None:
    workers = _workers()
    workers.long_answers = lambda answer: answer.stream.end(Unavailable("the worker has gone"))
    async with _serving(workers) as address, httpx.AsyncClient(base_url=f"http://{address}") as client:
        with pytest.raises((httpx.RemoteProtocolError, httpx.ReadError)):
            await client.post(GET, json=WHOLE)
        assert b"\r\n0\r\n\r\n" not in await _raw_until_reset(address)


async def _raw_until_reset(address: str) -> bytes:
    try:
        return await _raw(address, "1.1")
    except ConnectionResetError:
        return b""


def _held_back(workers: FakeWorkers) -> asyncio.Future[FakeLongAnswer]:
    """The answer to the next request, of which only the first chunk has come."""
    begun: asyncio.Future[FakeLongAnswer] = asyncio.get_running_loop().create_future()
    workers.long_answers = begun.set_result
    return begun


async def test_a_server_that_drains_sends_the_last_chunk_first() -> None:
    workers = _workers()
    begun = _held_back(workers)
    context = new_context(new_collection(dimension=2), workers)
    async with open_http_server(build_app(context), context.config.listener) as server:
        raw = asyncio.create_task(_raw(server.address, "1.1"))
        answer = await begun
        drained = asyncio.create_task(server.drain())
        done, _ = await asyncio.wait([drained], timeout=0.1)
        assert not done
        answer.stream.add(memoryview(b"the end"))
        answer.stream.end()
        await asyncio.wait_for(drained, 10)
        assert (await raw).endswith(b"7\r\nthe end\r\n0\r\n\r\n")


async def _asked(address: str) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    host, _, port = address.rpartition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    body = orjson.dumps(WHOLE)
    writer.write(f"POST {GET} HTTP/1.1\r\nhost: localhost\r\ncontent-length: {len(body)}\r\n\r\n".encode() + body)
    return reader, writer


async def test_a_client_that_hangs_up_ends_the_work_on_the_answer() -> None:
    workers = _workers()
    begun = _held_back(workers)
    async with _serving(workers) as address:
        reader, writer = await _asked(address)
        answer = await begun
        await reader.readuntil(b"\r\n\r\n")
        writer.transport.abort()
        async with asyncio.timeout(10):
            while not answer.ended:
                answer.stream.add(memoryview(b"more"))
                await asyncio.sleep(0.01)


async def test_a_client_that_takes_nothing_is_cut_off_and_ends_the_work_on_the_answer() -> None:
    workers = _workers()
    begun = _held_back(workers)
    cut = SLOW_CLIENTS._value.get()
    async with _serving(workers, send_timeout_s=0.2) as address:
        reader, writer = await _asked(address)
        answer = await begun
        await reader.readuntil(b"\r\n\r\n")
        writer.transport.pause_reading()  # type: ignore[attr-defined]
        answer.stream.add(memoryview(bytes(50_000_000)))
        async with asyncio.timeout(10):
            while not answer.ended:  # noqa: ASYNC110 (the server is waited for)
                await asyncio.sleep(0.01)
        assert SLOW_CLIENTS._value.get() == cut + 1
        writer.transport.abort()


async def test_a_client_that_is_slow_but_gets_on_is_not_cut_off() -> None:
    workers = _workers()
    begun = _held_back(workers)
    size = 20_000_000
    async with _serving(workers, send_timeout_s=0.4) as address:
        reader, writer = await _asked(address)
        answer = await begun
        answer.stream.add(memoryview(bytes(size)))
        answer.stream.end()
        read = 0
        while read < size:
            data = await reader.read(1_000_000)
            assert data, "cut off"
            read += len(data)
            await asyncio.sleep(0.08 if read < size // 2 else 0)
        writer.close()


async def _hung_up_between_two_chunks(server: HttpServer, begun: asyncio.Future[FakeLongAnswer]) -> FakeLongAnswer:
    """The answer whose client has gone. The connection is closed wholly by now."""
    reader, writer = await _asked(server.address)
    answer = await begun
    await reader.readuntil(b"\r\n\r\n")
    writer.transport.abort()
    async with asyncio.timeout(10):
        await server._open_connections.all_closed()
    return answer


@pytest.mark.parametrize("is_the_last", [False, True])
async def test_a_client_that_hangs_up_between_two_chunks_is_no_fault_of_the_server(
    caplog: pytest.LogCaptureFixture, is_the_last: bool
) -> None:
    workers = _workers()
    begun = _held_back(workers)
    context = new_context(new_collection(dimension=2), workers)
    async with open_http_server(build_app(context), context.config.listener) as server:
        answer = await _hung_up_between_two_chunks(server, begun)
        if not is_the_last:
            answer.stream.add(memoryview(b"more"))
        answer.stream.end()
        async with asyncio.timeout(10):
            await server.edge.in_flight.idle.wait()
    assert not caplog.records


async def test_a_client_that_hangs_up_is_noticed_however_long_the_next_chunk_takes() -> None:
    """An answer that waits for memory would keep its first window, and its turn, for nobody."""
    workers = _workers()
    begun = _held_back(workers)
    context = new_context(new_collection(dimension=2), workers)
    async with open_http_server(build_app(context), context.config.listener) as server:
        answer = await _hung_up_between_two_chunks(server, begun)
        async with asyncio.timeout(5):
            await server.edge.in_flight.idle.wait()
        assert answer.ended
