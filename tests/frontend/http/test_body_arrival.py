"""Bodies that stall or trickle give up their memory, and long ones keep nobody waiting who sends less."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from functools import partial

import pytest

from frontend.http.arrival import Arrival
from frontend.http.body_budget import BodyBudget
from tests.frontend.server import Running, running
from tests.shared.log.appending import eventually

HEAD = "POST /api/v2/tenants HTTP/1.1\r\nhost: localhost\r\ncontent-length: {length}\r\n\r\n"
PADDED = b'{"name": "abc", "x": "' + b"y" * 400_000 + b'"}'


def test_a_body_that_comes_too_slowly_is_found_at_the_end_of_a_window() -> None:
    arrival = Arrival(0.0, 100.0, rate_min=10, window_s=10.0)
    assert arrival.due_s == 10.0
    arrival.came(100)
    assert not arrival.too_slow(9.0)
    assert not arrival.too_slow(10.0)
    assert arrival.due_s == 20.0
    arrival.came(99)
    assert not arrival.too_slow(19.9)
    assert arrival.too_slow(20.0)


def test_a_wait_for_memory_is_no_slowness_of_the_client() -> None:
    arrival = Arrival(0.0, 100.0, rate_min=10, window_s=10.0)
    arrival.came(10)
    arrival.resumed(30.0)
    assert arrival.due_s == 40.0
    assert not arrival.too_slow(39.0)
    assert arrival.too_slow(40.0)


def test_without_a_rate_only_the_end_counts() -> None:
    arrival = Arrival(0.0, 100.0, rate_min=0)
    assert arrival.due_s == 100.0
    assert not arrival.too_slow(99.0)
    assert arrival.too_slow(100.0)


async def test_bodies_of_middle_length_do_not_wait_for_long_ones() -> None:
    budget = BodyBudget(4, 1000)
    for holder in range(3):
        await budget.acquire(holder, 1000, 1000, f"tenant {holder}")
    waiting = asyncio.create_task(budget.acquire("long", 10, 1000))
    await asyncio.wait_for(budget.acquire("middle", 90, 90), 1)
    await asyncio.sleep(0)
    assert not waiting.done()
    budget.release(0)
    await waiting
    for each in (1, 2, "middle", "long"):
        budget.release(each)
    assert budget.bytes == 0


async def test_a_body_that_becomes_long_moves_to_the_long_ones() -> None:
    budget = BodyBudget(4, 1000)
    for holder in range(10):
        await budget.acquire(holder, 100, tenant=f"tenant {holder}")
    assert budget.bytes == 1000
    await asyncio.wait_for(budget.acquire(0, 100), 1)  # 200 of the long ones' budget now
    await asyncio.wait_for(budget.acquire("another", 100), 1)
    assert budget.bytes == 1200
    await budget.acquire(0, 50)
    budget.release(0)
    assert budget.bytes == 1000


async def _stalled(server: Running, stack: AsyncExitStack, sent: bytes, length: int) -> asyncio.StreamReader:
    host, _, port = server.server.address.rpartition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    stack.callback(writer.close)
    writer.write(HEAD.format(length=length).encode() + sent)
    return reader


async def test_stalled_bodies_are_refused_in_time_and_keep_nobody_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("frontend.parse.body.Arrival", partial(Arrival, window_s=0.5))
    monkeypatch.setattr("frontend.http.request.RECEIVED_BODIES", 3)
    async with running(body_bytes_max=4_200_000, body_rate_min=100_000) as server, AsyncExitStack() as stack:
        stalled = [await _stalled(server, stack, b" " * 4_000_000, 4_100_000) for _ in range(4)]

        async def filled() -> bool:
            return (
                server.server.edge.bodies.receiving.bytes > 6_500_000
            )  # three quarters of what there is for long ones

        await eventually(filled)
        answer = await server.client.post("/api/v2/tenants", content=PADDED)
        assert answer.status_code == 200
        answers = [await asyncio.wait_for(reader.read(), 20) for reader in stalled]
        assert all(text.startswith(b"HTTP/1.1 408 ") for text in answers)
        assert server.server.edge.bodies.receiving.bytes == 0
        answer = await server.client.post("/api/v2/tenants", content=b" " * 3_000_000 + PADDED)
        assert answer.status_code == 409


async def test_a_slow_body_that_keeps_to_the_rate_arrives(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("frontend.parse.body.Arrival", partial(Arrival, window_s=0.2))
    async with running(body_rate_min=1000) as server:
        host, _, port = server.server.address.rpartition(":")
        reader, writer = await asyncio.open_connection(host, int(port))
        body = b'{"name": "slow"}' + b" " * 1000
        writer.write(
            HEAD.format(length=len(body)).replace("host: localhost", "host: localhost\r\nconnection: close").encode()
        )
        for at in range(0, len(body), 100):
            writer.write(body[at : at + 100])
            await asyncio.sleep(0.05)
        assert (await asyncio.wait_for(reader.read(), 10)).startswith(b"HTTP/1.1 200 ")
        writer.close()
