from __future__ import annotations

import asyncio
import contextlib
import os
import random
from collections.abc import AsyncIterator

import pytest
from structlog.testing import capture_logs

from shared import errors, telemetry
from shared.rpc import frames
from shared.rpc.client import RpcClient
from shared.rpc.frames import FrameKind
from shared.rpc.server import Handler, RpcServer


class Gate:
    """A handler that waits until the test lets it go."""

    def __init__(self) -> None:
        self.entered = asyncio.Event()
        self.open = asyncio.Event()
        self.cancelled = asyncio.Event()
        self.running = 0

    async def __call__(self, payload: memoryview) -> bytes:
        self.running += 1
        self.entered.set()
        try:
            await self.open.wait()
        except asyncio.CancelledError:
            self.cancelled.set()
            raise
        finally:
            self.running -= 1
        return bytes(payload)


async def echo(payload: memoryview) -> bytes:
    return bytes(payload)


@contextlib.asynccontextmanager
async def serving(handlers: dict[str, Handler], **options: int) -> AsyncIterator[tuple[RpcServer, RpcClient, str]]:
    server, client = RpcServer(handlers, **options), RpcClient()
    address = await server.start("127.0.0.1", 0)
    try:
        yield server, client, address
    finally:
        await client.close()
        await server.close()


async def test_payloads_of_any_size_come_back() -> None:
    async with serving({"echo": echo}) as (_, client, address):
        for size in (0, 1, 1000, 5_000_000):
            payload = os.urandom(size)
            assert bytes(await client.call(address, "echo", payload, timeout_s=5)) == payload


async def test_every_call_leaves_a_line_for_whoever_debugs() -> None:
    with capture_logs() as lines:
        async with serving({"echo": echo}) as (_, client, address):
            await client.call(address, "echo", b"", timeout_s=5)
            with contextlib.suppress(errors.PolychromeError):
                await client.call(address, "nothing", b"", timeout_s=5)
    seen = [(line["method"], line["code"], line["log_level"]) for line in lines if line["event"] == "call"]
    assert [one[0] for one in seen] == ["echo", "unknown"]
    assert seen[0] == ("echo", "ok", "debug")


async def test_many_calls_share_few_connections_and_answers_find_their_callers() -> None:
    async def late(payload: memoryview) -> bytes:
        await asyncio.sleep(0.001 * (payload[0] % 7))
        return bytes(payload)

    async with serving({"late": late}, calls_max=16) as (server, client, address):
        calls = [client.call(address, "late", bytes([i, i]), timeout_s=5) for i in range(200)]
        assert [bytes(answer) for answer in await asyncio.gather(*calls)] == [bytes([i, i]) for i in range(200)]
        assert len(server.connections) <= 2


@pytest.mark.parametrize(
    "error", [errors.Gone("x"), errors.Backoff("full"), errors.WrongWorker("y"), errors.Corrupt("z")]
)
async def test_an_error_arrives_as_the_class_that_was_raised(error: errors.PolychromeError) -> None:
    async def fail(_payload: memoryview) -> bytes:
        raise error

    async with serving({"fail": fail}) as (_, client, address):
        with pytest.raises(type(error), match=error.message):
            await client.call(address, "fail", b"", timeout_s=5)


async def test_an_unexpected_error_is_internal_and_tells_nothing() -> None:
    async def fail(_payload: memoryview) -> bytes:
        raise RuntimeError("secret")

    async with serving({"fail": fail}) as (_, client, address):
        with pytest.raises(errors.PolychromeError, match=r"^internal error$") as caught:
            await client.call(address, "fail", b"", timeout_s=5)
        assert type(caught.value) is errors.PolychromeError
        with pytest.raises(errors.Unimplemented):
            await client.call(address, "nothing", b"", timeout_s=5)


async def test_the_request_id_travels_with_the_call() -> None:
    async def who(_payload: memoryview) -> bytes:
        return telemetry.request_id.get().encode()

    async with serving({"who": who}) as (_, client, address):
        token = telemetry.request_id.set("r-1")
        try:
            assert bytes(await client.call(address, "who", b"", timeout_s=5)) == b"r-1"
        finally:
            telemetry.request_id.reset(token)


async def test_a_deadline_ends_the_call_on_both_sides() -> None:
    gate = Gate()
    async with serving({"gate": gate}) as (server, client, address):
        with pytest.raises(errors.DeadlineExceeded):
            await client.call(address, "gate", b"", timeout_s=0.05)
        await asyncio.wait_for(gate.cancelled.wait(), 5)
        assert gate.running == 0
        assert not any(connection.calls for connection in server.connections) or await _quiet(server)


async def _quiet(server: RpcServer) -> bool:
    await asyncio.gather(*(t for c in server.connections for t in c.calls.values()), return_exceptions=True)
    return True


async def test_cancelling_a_call_cancels_it_on_the_server() -> None:
    gate = Gate()
    async with serving({"gate": gate, "echo": echo}) as (_, client, address):
        call = asyncio.create_task(client.call(address, "gate", b"", timeout_s=60))
        await gate.entered.wait()
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
        await asyncio.wait_for(gate.cancelled.wait(), 5)
        assert bytes(await client.call(address, "echo", b"still", timeout_s=5)) == b"still"


async def test_a_method_that_is_cancelled_by_its_own_process_leaves_no_caller_waiting() -> None:
    async def cancelled(_payload: memoryview) -> bytes:
        raise asyncio.CancelledError

    async with serving({"cancelled": cancelled}) as (_, client, address):
        with pytest.raises(errors.Unavailable):
            await client.call(address, "cancelled", b"", timeout_s=60)


async def test_calls_in_flight_fail_at_once_when_the_connection_drops_and_the_next_one_reconnects() -> None:
    gate = Gate()
    async with serving({"gate": gate, "echo": echo}) as (server, client, address):
        calls = [asyncio.create_task(client.call(address, "gate", b"", timeout_s=60)) for _ in range(5)]
        await gate.entered.wait()
        for connection in list(server.connections):
            connection.abort()
        results = await asyncio.wait_for(asyncio.gather(*calls, return_exceptions=True), 5)
        assert all(type(result) is errors.Unavailable for result in results)
        assert bytes(await client.call(address, "echo", b"again", timeout_s=5)) == b"again"


async def test_a_dead_address_is_unavailable_and_forgotten() -> None:
    server = RpcServer({})
    address = await server.start("127.0.0.1", 0)
    await server.close()
    client = RpcClient()
    for wrong in (address, "127.0.0.1:nonsense"):
        with pytest.raises(errors.Unavailable):
            await client.call(wrong, "echo", b"", timeout_s=5)
    assert client._channels == {}
    await client.close()
    with pytest.raises(errors.Unavailable):
        await client.call(address, "echo", b"", timeout_s=5)


async def test_draining_finishes_what_is_in_flight_and_refuses_the_rest() -> None:
    gate = Gate()
    async with serving({"gate": gate, "echo": echo}) as (server, client, address):
        call = asyncio.create_task(client.call(address, "gate", b"x", timeout_s=60))
        await gate.entered.wait()
        host, port = frames.split_address(address)
        reader, writer = await asyncio.open_connection(host, port)
        request = frames.msgspec.msgpack.encode(frames.RequestHeader("echo", "", 5_000))
        writer.write(frames.head(FrameKind.REQUEST, 1, request, 0))
        await reader.readexactly(frames.HEAD_BYTES)
        draining = asyncio.create_task(server.drain(5))
        assert (await asyncio.wait_for(reader.readexactly(frames.HEAD_BYTES), 5))[3] == FrameKind.LEAVING
        assert await reader.read() == b""  # nothing in flight there: closed
        writer.close()
        with pytest.raises(errors.PolychromeError):  # the listener is gone, and the connection takes no new calls
            await client.call(address, "echo", b"", timeout_s=5)
        gate.open.set()
        assert bytes(await call) == b"x"
        await asyncio.wait_for(draining, 5)


async def test_a_call_that_crosses_the_notice_of_leaving_is_refused_as_the_wrong_worker() -> None:
    gate = Gate()
    async with serving({"gate": gate, "echo": echo}) as (server, _, address):
        reader, writer = await asyncio.open_connection(*frames.split_address(address))
        request = frames.msgspec.msgpack.encode(frames.RequestHeader("gate", "", 60_000))
        writer.write(frames.head(FrameKind.REQUEST, 1, request, 0))
        await gate.entered.wait()
        draining = asyncio.create_task(server.drain(5))
        await reader.readexactly(frames.HEAD_BYTES)
        writer.write(frames.head(FrameKind.REQUEST, 2, request, 0))
        head = await reader.readexactly(frames.HEAD_BYTES)
        assert (head[3], head[19]) == (FrameKind.ERROR, 2)
        gate.open.set()
        await draining
        writer.close()


@pytest.mark.parametrize(
    "garbage", [b"GET / HTTP/1.1\r\n\r\n", b"\0" * 64, random.Random(0).randbytes(4096), b"PC\x01\x01" + b"\xff" * 64]
)
async def test_garbage_on_the_port_closes_that_connection_and_no_other(garbage: bytes) -> None:
    async with serving({"echo": echo}) as (_, client, address):
        await client.call(address, "echo", b"", timeout_s=5)
        reader, writer = await asyncio.open_connection(*frames.split_address(address))
        writer.write(garbage)
        with contextlib.suppress(ConnectionResetError):
            assert await asyncio.wait_for(reader.read(), 5) == b""
        writer.close()
        assert bytes(await client.call(address, "echo", b"fine", timeout_s=5)) == b"fine"


async def test_a_bad_header_closes_the_connection() -> None:
    async with serving({"echo": echo}) as (server, _, address):
        reader, writer = await asyncio.open_connection(*frames.split_address(address))
        writer.write(frames.head(FrameKind.REQUEST, 1, b"\x00", 0))
        with contextlib.suppress(ConnectionResetError):
            assert await asyncio.wait_for(reader.read(), 5) == b""
        writer.close()
        assert not server.connections


async def test_an_answer_over_the_limit_is_an_error_not_a_broken_connection() -> None:
    async def big(_payload: memoryview) -> bytes:
        return bytes(2000)

    async with serving({"big": big, "echo": echo}, frame_bytes_max=1000) as (_, client, address):
        with pytest.raises(errors.InvalidArgument, match="ask for less"):
            await client.call(address, "big", b"", timeout_s=5)
        assert bytes(await client.call(address, "echo", b"x", timeout_s=5)) == b"x"


async def test_a_client_that_closes_fails_its_calls_and_the_server_stops_working_for_it() -> None:
    gate = Gate()
    async with serving({"gate": gate}) as (_, client, address):
        call = asyncio.create_task(client.call(address, "gate", b"", timeout_s=60))
        await gate.entered.wait()
        await client.close()
        with pytest.raises(errors.Unavailable):
            await call
        await asyncio.wait_for(gate.cancelled.wait(), 5)
