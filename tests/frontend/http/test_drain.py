"""A frontend that stops takes what is being sent to it and delivers what it has answered, also to clients that are slow
to send or to take it.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import orjson
import pytest
import uvloop

from frontend.access.access_table import PUBLIC, AccessTable
from frontend.http.request import Request
from frontend.http.responses import HttpResponse, encoded_response
from frontend.http.router import Route, Router
from tests.frontend.server import COLLECTIONS, Running, running

BODY_BYTES = 30_000_000
LONG = b"GET /long HTTP/1.1\r\nhost: localhost\r\n\r\n"
VERSION = b"GET /api/v2/version HTTP/1.1\r\nhost: localhost\r\n\r\n"
HANGS_S = 30.0
"""What takes longer is taken to hang."""


def _router(*routes: Route) -> Router:
    return Router(routes, AccessTable({(route.method, route.path): PUBLIC for route in routes}))


async def _long(_request: Request) -> HttpResponse:
    return encoded_response(bytes(BODY_BYTES))


async def _short(_request: Request) -> HttpResponse:
    return encoded_response(b'"short"')


async def _until(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(HANGS_S):
        while not condition():  # noqa: ASYNC110 (the other side of a connection is waited for)
            await asyncio.sleep(0.005)


async def _open(server: Running) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    host, _, port = server.server.address.rpartition(":")
    return await asyncio.open_connection(host, int(port))


async def _drain_begun(server: Running) -> asyncio.Task[None]:
    """A draining that waits for something: it has had time to end, or to do what it must not."""
    draining = asyncio.create_task(server.server.drain())
    done, _ = await asyncio.wait([draining], timeout=0.2)
    assert not done, "drained before what was under way had ended"
    return draining


@asynccontextmanager
async def _asked() -> AsyncIterator[tuple[Running, socket.socket]]:
    """A server, and a client that has asked for a long answer and reads none of it yet. The client's buffer in the
    kernel is small, so that most of the answer stays with the server.
    """
    async with running() as server:
        server.server.edge._router = _router(Route("GET", "/long", _long), Route("GET", "/short", _short))
        host, _, port = server.server.address.rpartition(":")
        with socket.socket() as client:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 64 * 1024)
            client.connect((host, int(port)))
            client.setblocking(False)
            await asyncio.get_running_loop().sock_sendall(client, LONG)
            await _until(lambda: any(each.get_write_buffer_size() for each in _transports(server)))
            yield server, client


def _transports(server: Running) -> list[asyncio.Transport]:
    return [each.transport for each in server.server._server.connections if each.transport is not None]


async def _read_all(client: socket.socket) -> bytes:
    """What comes until the connection ends."""
    loop, found = asyncio.get_running_loop(), bytearray()
    with contextlib.suppress(ConnectionResetError):
        while data := await asyncio.wait_for(loop.sock_recv(client, 1 << 20), HANGS_S):
            found += data
    return bytes(found)


async def test_an_answer_that_a_slow_client_has_not_read_yet_arrives_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("frontend.http.server.CLOSE_TIMEOUT_S", 0.05)
    async with _asked() as (server, client):

        async def stop() -> None:
            await server.server.drain()
            await server.server.close()

        stopping = asyncio.create_task(stop())
        done, _ = await asyncio.wait([stopping], timeout=0.5)
        assert not done, "drained before the answer was delivered"
        assert len((await _read_all(client)).partition(b"\r\n\r\n")[2]) == BODY_BYTES
        await asyncio.wait_for(stopping, HANGS_S)


async def test_a_body_that_is_still_arriving_is_read_and_its_request_answered() -> None:
    body = orjson.dumps({"name": "uploaded", "metadata": {"long": "x" * 200_000}})
    async with running() as server:
        reader, writer = await _open(server)
        writer.write(f"POST {COLLECTIONS} HTTP/1.1\r\nhost: localhost\r\ncontent-length: {len(body)}\r\n\r\n".encode())
        writer.write(body[:1000])
        await _until(lambda: server.server.edge.in_flight.count)
        draining = await _drain_begun(server)
        writer.write(body[1000:])
        answer = await asyncio.wait_for(reader.read(), HANGS_S)
        assert answer.startswith(b"HTTP/1.1 200 ")
        assert b"Connection: close\r\n" in answer
        await asyncio.wait_for(draining, HANGS_S)
        writer.close()


async def test_a_request_behind_an_answer_that_has_begun_is_answered_and_then_the_connection_ends() -> None:
    """The first answer promised that the connection would stay; the second one takes that back."""
    async with _asked() as (server, client):
        draining = await _drain_begun(server)
        await asyncio.get_running_loop().sock_sendall(client, b"GET /short HTTP/1.1\r\nhost: localhost\r\n\r\n")
        answers = await _read_all(client)
        assert answers.count(b"HTTP/1.1 200 ") == 2
        assert answers.count(b"Connection: close\r\n") == 1
        assert answers.endswith(b'"short"')
        await asyncio.wait_for(draining, HANGS_S)


async def test_a_request_behind_an_answer_that_ends_the_connection_is_not_begun() -> None:
    held, begun = asyncio.Event(), 0

    async def wait(_request: Request) -> HttpResponse:
        nonlocal begun
        begun += 1
        await held.wait()
        return encoded_response(b'"waited"')

    async with running() as server:
        server.server.edge._router = _router(Route("GET", "/held", wait))
        reader, writer = await _open(server)
        writer.write(b"GET /held HTTP/1.1\r\nhost: localhost\r\n\r\n")
        await _until(lambda: begun)
        draining = await _drain_begun(server)
        writer.write(b"GET /held HTTP/1.1\r\nhost: localhost\r\n\r\n")
        held.set()
        answer = await asyncio.wait_for(reader.read(), HANGS_S)
        assert answer.count(b"HTTP/1.1 200 ") == answer.count(b"Connection: close\r\n") == begun == 1
        await asyncio.wait_for(draining, HANGS_S)
        writer.close()


async def test_an_idle_connection_is_closed_so_that_its_client_asks_another_frontend() -> None:
    """Not left open and unread: a request on it would wait until the process ends."""
    async with running() as server:
        used, unused = [await _open(server) for _ in range(2)]
        used[1].write(VERSION)
        assert (await used[0].readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 200 ")
        await asyncio.wait_for(server.server.drain(), HANGS_S)
        for reader, writer in (used, unused):
            writer.write(VERSION)
            with contextlib.suppress(ConnectionResetError):
                await asyncio.wait_for(reader.read(), HANGS_S)
            writer.close()


@pytest.mark.parametrize("turns", range(4))
def test_connections_that_are_accepted_while_draining_begins_are_closed(turns: int) -> None:
    """However far the loop has come with them. On the loop that processes run on: that of the standard library forgets
    sockets which it has accepted when their listener is closed.
    """

    async def check() -> None:
        async with running() as server:
            host, _, port = server.server.address.rpartition(":")
            clients = [socket.create_connection((host, int(port))) for _ in range(5)]
            for _ in range(turns):
                await asyncio.sleep(0)
            await asyncio.wait_for(server.server.drain(), HANGS_S)
            for client in clients:
                client.setblocking(False)
                assert await _read_all(client) == b""
                client.close()

    uvloop.run(check())


@pytest.mark.parametrize("turns", range(4))
def test_requests_on_connections_that_wait_to_be_accepted_are_answered(turns: int) -> None:
    async def check() -> None:
        async with running() as server:
            host, _, port = server.server.address.rpartition(":")
            clients = [socket.create_connection((host, int(port))) for _ in range(20)]
            for client in clients:
                client.sendall(VERSION)
            for _ in range(turns):
                await asyncio.sleep(0)
            await asyncio.wait_for(server.server.drain(), HANGS_S)
            for client in clients:
                client.setblocking(False)
                assert (await _read_all(client)).startswith(b"HTTP/1.1 200")
                client.close()

    uvloop.run(check())


async def test_draining_does_not_wait_for_connections_that_have_nothing_under_way() -> None:
    async with running() as server:
        assert (await server.client.get("/api/v2/version")).status_code == 200
        await asyncio.wait_for(server.server.drain(), HANGS_S)


async def test_a_client_that_reads_nothing_holds_up_draining_until_its_deadline_and_closing_not_at_all(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("frontend.http.server.CLOSE_TIMEOUT_S", 0.1)
    async with _asked() as (server, _client):
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(server.server.drain(), 0.3)
        await asyncio.wait_for(server.server.close(), HANGS_S)
