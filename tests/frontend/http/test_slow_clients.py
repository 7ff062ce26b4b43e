"""From the client through the frontend to the query worker: a slow client costs the frontend a little memory and the
worker a little of an answer, and nobody else anything.
"""

from __future__ import annotations

import asyncio
import socket
import statistics
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

import httpx
import msgspec
import orjson

from frontend.app import build_app
from frontend.http.server import open_http_server
from shared.rpc.answer_budget import FIRST_WINDOW_BYTES, WINDOW_BYTES
from shared.rpc.chunks import Answer
from shared.rpc.client import RpcClient
from shared.rpc.messages import GetRequest
from shared.rpc.server import RpcServer
from tests.frontend.fakes import COLLECTION_ID, FakeWorkers, Row, new_collection, new_config, new_context
from tests.shared.rpc.serving import InPieces, each, until

GET = f"/api/v2/tenants/default_tenant/databases/default_database/collections/{COLLECTION_ID}/get"
LONG = orjson.dumps({"include": ["embeddings"]})
SHORT = {"ids": ["id1"], "include": []}
PIECE = bytes(1 << 20)
ANSWER_BYTES = 200 * len(PIECE)
BUDGET = 4 * 1024 * 1024


class _RemoteWorkers(FakeWorkers):
    """Long answers come from a query worker's server. So do short ones, over the same connection; they are made up
    afterwards.
    """

    rpc: RpcClient
    address: str

    async def get_chunks(self, request: GetRequest) -> Answer:
        method = "long" if request.in_parts else "short"
        payload = msgspec.msgpack.encode(request)
        answer = await self.rpc.begin_chunks(self.address, method, payload, timeout_s=60)
        return answer if request.in_parts else memoryview(await self.get_body(request))


@dataclass
class _System:
    address: str
    server: RpcServer
    rpc: RpcClient
    pieces: InPieces


@asynccontextmanager
async def _system() -> AsyncIterator[_System]:
    async def short(_payload: memoryview) -> bytes:
        return b""

    pieces = InPieces([PIECE] * (ANSWER_BYTES // len(PIECE)))
    server = RpcServer({"long": pieces, "short": each(short)})
    rpc = RpcClient(connections_per_address=1, answers_bytes_max=BUDGET)
    workers = _RemoteWorkers([[Row(1, (1.0, 0.0))]])
    workers.rpc, workers.address = rpc, await server.start("127.0.0.1", 0)
    context = new_context(new_collection(dimension=2), workers)
    context.config = new_config()
    try:
        async with open_http_server(build_app(context), context.config.listener) as http:
            yield _System(http.address, server, rpc, pieces)
    finally:
        await rpc.close()
        await server.close()


@asynccontextmanager
async def _client(address: str) -> AsyncIterator[socket.socket]:
    """A client that has asked for the long answer. The kernel takes little of it for the client."""
    host, _, port = address.rpartition(":")
    with socket.socket() as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 64 * 1024)
        client.connect((host, int(port)))
        client.setblocking(False)
        head = f"POST {GET} HTTP/1.1\r\nhost: localhost\r\ncontent-length: {len(LONG)}\r\n\r\n".encode()
        await asyncio.get_running_loop().sock_sendall(client, head + LONG)
        yield client


async def _read_for(client: socket.socket, seconds: float, bytes_per_s: int) -> int:
    began_s, read = time.monotonic(), 0
    while time.monotonic() < began_s + seconds:
        read += len(await asyncio.get_running_loop().sock_recv(client, 64 * 1024))
        await asyncio.sleep(max(0.0, began_s + read / bytes_per_s - time.monotonic()))
    return read


async def _latency_s(others: httpx.AsyncClient) -> float:
    """Seconds that a short request takes."""
    began_s = time.monotonic()
    assert (await others.post(GET, json=SHORT)).status_code == 200
    return time.monotonic() - began_s


async def test_a_slow_client_of_a_long_answer_holds_little_and_no_others_up_and_releases_all_when_it_goes() -> None:
    async with _system() as system, httpx.AsyncClient(base_url=f"http://{system.address}", timeout=10) as others:
        alone_s = [await _latency_s(others) for _ in range(50)]
        async with _client(system.address) as slow:
            reading = asyncio.create_task(_read_for(slow, 2.0, 1_000_000))
            beside_s: list[float] = []
            while not reading.done():
                beside_s.append(await _latency_s(others))
                assert system.rpc.answers.held <= BUDGET
                await asyncio.sleep(0.01)
            assert await reading < 4_000_000
            assert len(system.server.connections) == 1, "the others are not behind it on the same connection"
            assert statistics.median(beside_s) < 20 * statistics.median(alone_s)
            sockets_bytes = 6_000_000  # what kernels may buffer on the way
            assert system.pieces.made < 2_000_000 + WINDOW_BYTES + 2 * len(PIECE) + sockets_bytes < ANSWER_BYTES / 10
        await until(lambda: system.pieces.calls[0].done)
        await until(lambda: system.rpc.answers.held == 0)
        assert system.server.unsent.total == 0


async def test_clients_that_read_nothing_hold_no_more_together_than_the_budget_and_their_first_windows() -> None:
    async with _system() as system, httpx.AsyncClient(base_url=f"http://{system.address}", timeout=10) as others:
        clients = [_client(system.address) for _ in range(12)]
        for client in clients:
            await client.__aenter__()
        await until(lambda: len(system.pieces.calls) == len(clients))
        await asyncio.sleep(0.5)
        assert system.rpc.answers.held <= BUDGET + len(clients) * FIRST_WINDOW_BYTES
        assert (await others.post(GET, json=SHORT)).status_code == 200
        for client in clients:
            await client.__aexit__(None, None, None)
        await until(lambda: all(call.done for call in system.pieces.calls))
        await until(lambda: system.rpc.answers.held == 0)
