"""Bodies of one tenant keep no other one's waiting, over real sockets."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack

import pytest

from tests.frontend.server import Running, running
from tests.shared.log.appending import eventually

COLLECTIONS = "/api/v2/tenants/{tenant}/databases/default_database/collections"
HEAD = "POST {path} HTTP/1.1\r\nhost: localhost\r\ncontent-length: {length}\r\n\r\n"


async def _stalled(server: Running, stack: AsyncExitStack, sent: bytes, length: int) -> None:
    host, _, port = server.server.address.rpartition(":")
    _, writer = await asyncio.open_connection(host, int(port))
    stack.callback(writer.close)
    path = COLLECTIONS.format(tenant="noisy")
    writer.write(HEAD.format(path=path, length=length).encode() + sent)


async def test_stalled_bodies_of_a_tenant_leave_memory_for_a_long_one_of_another(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("frontend.http.request.RECEIVED_BODIES", 4)
    async with running(body_bytes_max=4_000_000, body_rate_min=0) as server, AsyncExitStack() as stack:
        for _ in range(6):
            await _stalled(server, stack, b" " * 3_500_000, 3_600_000)

        async def filled() -> bool:
            return server.server.edge.bodies.receiving.bytes > 8_500_000  # of 9, a tenant's share of the long ones' 12

        await eventually(filled)
        body = b" " * 2_000_000 + b'{"name": "quiet"}'
        answer = await asyncio.wait_for(
            server.client.post(COLLECTIONS.format(tenant="default_tenant"), content=body), 5
        )
        assert answer.status_code == 200, answer.text
        assert server.server.edge.bodies.receiving.bytes <= 9_000_000
