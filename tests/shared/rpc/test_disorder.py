"""Whatever happens to many calls at once, in whatever order, nothing of them is left on either side."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Sequence

import pytest

from shared import errors
from shared.rpc.chunks import ChunkStream, discard
from shared.rpc.client import RpcClient
from shared.rpc.server import RpcServer
from shared.rpc.server_call import Call
from tests.shared.rpc.serving import serving, until

MIB = 1 << 20
SIZES = (0, 1, 1000, 256 * 1024, 256 * 1024 + 1, 512 * 1024, 700_000, 3 * MIB)
CALLS = 100


class _AtRandom:
    """A method whose answers have some pieces of any size, some of them late, and of which some fail."""

    def __init__(self, chance: random.Random) -> None:
        self._chance = chance

    def __call__(self, calls: Sequence[Call]) -> None:
        for call in calls:
            self._go_on(call, self._chance.randrange(12))

    def _go_on(self, call: Call, pieces: int) -> None:
        asyncio.get_running_loop().call_later(self._chance.random() * 0.01, self._send, call, pieces)

    def _send(self, call: Call, pieces: int) -> None:
        payload = bytes(self._chance.choice(SIZES))
        if self._chance.random() < 0.04:
            call.fail(errors.Corrupt("by chance"))
        elif pieces:
            call.chunk(payload, lambda: self._go_on(call, pieces - 1))
        else:
            call.answer(payload)


async def _read(stream: ChunkStream, server: RpcServer, chance: random.Random) -> None:
    async for _ in stream:
        if chance.random() < 0.05:
            return
        if chance.random() < 0.3:
            await asyncio.sleep(chance.random() * 0.02)
        if chance.random() < 0.005:
            next(iter(server.connections)).abort()


async def _call(client: RpcClient, address: str, server: RpcServer, chance: random.Random) -> None:
    timeout_s = chance.choice([0.02, 0.3, 20, 20, 20])
    payload = bytes(chance.choice([0, 10, 200_000]))
    call = client.begin_chunks(address, "at_random", payload, timeout_s=timeout_s)
    try:
        answer = await asyncio.wait_for(asyncio.shield(call), chance.choice([0.01, 30, 30, 30]))
        if isinstance(answer, ChunkStream):
            try:
                await _read(answer, server, chance)
            finally:
                answer.close()
    finally:
        discard(call)


@pytest.mark.parametrize("seed", range(4))
async def test_calls_that_are_read_cancelled_refused_late_or_cut_leave_nothing(seed: int) -> None:
    chance = random.Random(seed)
    client = RpcClient(connections_per_address=1 + seed % 2, answers_bytes_max=(1000, 300_000, 4 * MIB, 64 * MIB)[seed])
    async with serving({}, client, calls_max=(2, 8, 512)[seed % 3]) as (server, client, address):
        server.methods["at_random"] = _AtRandom(chance)
        server.unsent._bytes_max = (MIB, 8 * MIB)[seed % 2]
        tasks = []
        for _ in range(CALLS):
            tasks.append(asyncio.create_task(_call(client, address, server, chance)))
            if chance.random() < 0.2:
                asyncio.get_running_loop().call_later(chance.random() * 0.2, tasks[-1].cancel)
            await asyncio.sleep(chance.random() * 0.003)
        async with asyncio.timeout(60):
            outcomes = await asyncio.gather(*tasks, return_exceptions=True)
        expected = (errors.PolychromeError, TimeoutError, asyncio.CancelledError)
        assert [outcome for outcome in outcomes if outcome is not None and not isinstance(outcome, expected)] == []
        assert None in outcomes
        await until(lambda: not any(connection.calls for connection in server.connections))
        assert [len(connection._long_answers) for connection in server.connections if connection._long_answers] == []
        assert [connection._waiting.bytes for connection in server.connections if connection._waiting.bytes] == []
        assert not any(peer.open or peer.streaming for peer in client._peers.values())
        assert (client.answers.held, client.answers._readers, client.answers._waiting) == (0, 0, {})
        assert server.unsent.total == 0
