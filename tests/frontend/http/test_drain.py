"""A frontend that stops delivers what it has answered, also to clients that are slow to take it."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from frontend.http.request import Request
from frontend.http.responses import HttpResponse, encoded_response
from frontend.http.router import Route, Router
from tests.frontend.server import Running, running

BODY_BYTES = 30_000_000
REQUEST = b"GET /long HTTP/1.1\r\nhost: x\r\n\r\n"


async def _long(_request: Request) -> HttpResponse:
    return encoded_response(bytes(BODY_BYTES))


@asynccontextmanager
async def _asked() -> AsyncIterator[tuple[Running, socket.socket]]:
    """A server, and a client that has asked for a long answer and reads none of it yet. The client's buffer in the
    kernel is small, so that most of the answer stays with the server.
    """
    async with running() as server:
        server.server.edge._router = Router([Route("GET", "/long", _long)])
        host, _, port = server.server.address.rpartition(":")
        with socket.socket() as client:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 64 * 1024)
            client.connect((host, int(port)))
            client.setblocking(False)
            await asyncio.get_running_loop().sock_sendall(client, REQUEST)
            await asyncio.sleep(0.1)
            yield server, client


async def _read_all(client: socket.socket) -> int:
    """Bytes of the body that come until the connection ends."""
    loop, found = asyncio.get_running_loop(), bytearray()
    try:
        while data := await asyncio.wait_for(loop.sock_recv(client, 1 << 20), 10):
            found += data
    except ConnectionResetError:
        pass
    return len(bytes(found).partition(b"\r\n\r\n")[2])


async def test_an_answer_that_a_slow_client_has_not_read_yet_arrives_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("frontend.http.server.CLOSE_TIMEOUT_S", 0.05)
    async with _asked() as (server, client):

        async def stop() -> None:
            await server.server.drain()
            await server.server.close()

        stopping = asyncio.create_task(stop())
        done, _ = await asyncio.wait([stopping], timeout=0.5)
        assert not done, "drained before the answer was delivered"
        assert await _read_all(client) == BODY_BYTES
        await asyncio.wait_for(stopping, 5)


async def test_an_idle_connection_is_closed_so_that_its_client_asks_another_frontend() -> None:
    """Not left open and unread: a request on it would wait until the process ends."""
    async with running() as server:
        host, _, port = server.server.address.rpartition(":")
        used, unused = [await asyncio.open_connection(host, int(port)) for _ in range(2)]
        used[1].write(b"GET /api/v2/version HTTP/1.1\r\nhost: x\r\n\r\n")
        assert (await used[0].readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 200 ")
        await asyncio.wait_for(server.server.drain(), 2)
        for reader, writer in (used, unused):
            writer.write(REQUEST)
            with contextlib.suppress(ConnectionResetError):
                await asyncio.wait_for(reader.read(), 2)
            writer.close()


async def test_draining_does_not_wait_for_connections_that_have_nothing_under_way() -> None:
    async with running() as server:
        assert (await server.client.get("/api/v2/version")).status_code == 200
        await asyncio.wait_for(server.server.drain(), 2)


async def test_a_client_that_reads_nothing_holds_up_draining_until_its_deadline(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("frontend.http.server.CLOSE_TIMEOUT_S", 0.1)
    async with _asked() as (server, _client):
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(server.server.drain(), 0.3)
        began_s = time.monotonic()
        await server.server.close()
        assert time.monotonic() - began_s < 2
