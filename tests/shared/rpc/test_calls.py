from __future__ import annotations

import asyncio
import contextlib
import os
import random

import pytest
from structlog.testing import capture_logs

from shared import errors
from shared.process import telemetry
from shared.rpc import frames
from shared.rpc.client import RpcClient
from shared.rpc.frames import FRAME_CALLS_MAX, OWN_FRAME_BYTES, AnswerHeader, CallHeader, FrameKind, FrameReader
from shared.rpc.server import RpcServer
from tests.shared.rpc.serving import Gate, echo, one_call, serving, until


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
    gate = Gate()
    async with serving({"gate": gate}) as (_, client, address):
        token = telemetry.request_id.set("r-1")
        try:
            call = client.begin(address, "gate", b"", timeout_s=5)
        finally:
            telemetry.request_id.reset(token)
        await gate.entered.wait()
        assert gate.calls[0].request_id == "r-1"
        gate.open()
        await call


async def test_a_deadline_ends_the_call_on_both_sides() -> None:
    gate = Gate()
    async with serving({"gate": gate}) as (server, client, address):
        with pytest.raises(errors.DeadlineExceeded):
            await client.call(address, "gate", b"", timeout_s=0.05)
        await until(gate.abandoned)
        assert not any(connection.calls for connection in server.connections)


async def test_cancelling_a_call_cancels_it_on_the_server() -> None:
    gate = Gate()
    async with serving({"gate": gate, "echo": echo}) as (_, client, address):
        call = asyncio.create_task(client.call(address, "gate", b"", timeout_s=60))
        await gate.entered.wait()
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
        await until(gate.abandoned)
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
        assert all(type(result) is errors.ConnectionLost for result in results)
        assert bytes(await client.call(address, "echo", b"again", timeout_s=5)) == b"again"


async def test_a_dead_address_is_unavailable_and_forgotten() -> None:
    server = RpcServer({})
    address = await server.start("127.0.0.1", 0)
    await server.close()
    client = RpcClient()
    for wrong in (address, "127.0.0.1:nonsense"):
        with pytest.raises(errors.Unavailable):
            await client.call(wrong, "echo", b"", timeout_s=5)
    assert client._peers == {}
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
        writer.writelines(one_call("echo", 1))
        await reader.readexactly(len(b"".join(frames.framed(FrameKind.ANSWERS, [AnswerHeader(1, 0)], ()))))
        draining = asyncio.create_task(server.drain(5))
        assert (await asyncio.wait_for(reader.readexactly(frames.HEAD_BYTES + 1), 5))[3] == FrameKind.LEAVING
        assert await reader.read() == b""  # nothing in flight there: closed
        writer.close()
        with pytest.raises(errors.PolychromeError):  # the listener is gone, and the connection takes no new calls
            await client.call(address, "echo", b"", timeout_s=5)
        gate.open()
        assert bytes(await call) == b"x"
        await asyncio.wait_for(draining, 5)


async def test_a_call_that_crosses_the_notice_of_leaving_is_refused_as_the_wrong_worker() -> None:
    gate = Gate()
    async with serving({"gate": gate}) as (server, _, address):
        reader, writer = await asyncio.open_connection(*frames.split_address(address))
        writer.writelines(one_call("gate", 1))
        await gate.entered.wait()
        draining = asyncio.create_task(server.drain(5))
        await reader.readexactly(frames.HEAD_BYTES + 1)  # an empty list
        writer.writelines(one_call("gate", 2))
        (frame,) = frames.FrameReader().feed(await reader.read(1000))
        ((header, _),) = frames.answers_of(frame)
        assert (header.number, header.code) == (2, "wrong_worker")
        gate.open()
        await draining
        writer.close()


@pytest.mark.parametrize(
    "garbage", [b"GET / HTTP/1.1\r\n\r\n", b"\0" * 64, random.Random(0).randbytes(4096), b"PC\x02\x01" + b"\xff" * 64]
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
        writer.writelines(frames.framed(FrameKind.CALLS, [1, 2, 3], ()))
        with contextlib.suppress(ConnectionResetError):
            assert await asyncio.wait_for(reader.read(), 5) == b""
        writer.close()
        assert not server.connections


@pytest.mark.parametrize("size", [985, 2000])
async def test_an_answer_over_the_limit_is_an_error_not_a_broken_connection(size: int) -> None:
    async def big(_payload: memoryview) -> bytes:
        return bytes(size)

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
        await until(gate.abandoned)


# ---- calls that travel together


async def test_calls_that_come_while_a_frame_is_under_way_travel_together_and_in_order() -> None:
    gate = Gate()
    async with serving({"gate": gate}) as (_, client, address):
        first = client.begin(address, "gate", b"0", timeout_s=5)
        await gate.entered.wait()
        later = [client.begin(address, "gate", bytes([i]), timeout_s=5) for i in range(1, 6)]
        gate.open()
        await first
        await until(lambda: len(gate.calls) == 6)
        assert gate.frames == [1, 5]
        assert [bytes(call.payload) for call in gate.calls[1:]] == [bytes([i]) for i in range(1, 6)]
        gate.open()
        assert [bytes(await answer) for answer in later] == [bytes([i]) for i in range(1, 6)]


async def test_a_slow_call_holds_up_neither_those_that_come_after_it_nor_those_that_came_with_it() -> None:
    gate = Gate()
    async with serving({"gate": gate, "echo": echo}) as (_, client, address):
        slow = client.begin(address, "gate", b"slow", timeout_s=60)
        beside = client.begin(address, "echo", b"beside", timeout_s=60)
        assert bytes(await beside) == b"beside"
        assert [bytes(await client.call(address, "echo", b"x", timeout_s=5)) for _ in range(3)] == [b"x"] * 3
        assert not slow.done()
        gate.open()
        assert bytes(await slow) == b"slow"


async def test_a_call_that_fails_fails_alone() -> None:
    async def odd_only(payload: memoryview) -> bytes:
        if payload[0] % 2 == 0:
            raise errors.Gone(str(payload[0]))
        return bytes(payload)

    async with serving({"odd": odd_only}) as (_, client, address):
        calls = [client.begin(address, "odd", bytes([i]), timeout_s=5) for i in range(10)]
        outcomes = await asyncio.gather(*calls, return_exceptions=True)
        assert [isinstance(outcome, errors.Gone) for outcome in outcomes] == [i % 2 == 0 for i in range(10)]
        answers = [bytes(outcome) for outcome in outcomes if isinstance(outcome, memoryview)]
        assert answers == [bytes([i]) for i in range(1, 10, 2)]


async def test_of_a_frame_whose_connection_is_lost_every_call_fails_and_a_held_one_takes_a_new_connection() -> None:
    gate = Gate()
    async with serving({"gate": gate, "echo": echo}) as (server, client, address):
        calls = [client.begin(address, "gate", bytes([i]), timeout_s=60) for i in range(5)]
        await gate.entered.wait()
        held = client.begin(address, "echo", b"held", timeout_s=60)
        for connection in list(server.connections):
            connection.abort()
        outcomes = await asyncio.wait_for(asyncio.gather(*calls, return_exceptions=True), 5)
        assert [type(outcome) for outcome in outcomes] == [errors.ConnectionLost] * 5
        assert bytes(await held) == b"held"


async def test_a_cancelled_call_is_abandoned_alone_whether_it_was_sent_or_not() -> None:
    gate = Gate()
    async with serving({"gate": gate}) as (_, client, address):
        calls = [client.begin(address, "gate", bytes([i]), timeout_s=60) for i in range(3)]
        await gate.entered.wait()
        held = [client.begin(address, "gate", bytes([i]), timeout_s=60) for i in range(3, 6)]
        held[0].cancel()
        calls[1].cancel()
        await until(lambda: gate.calls[1].done)
        assert [call.done for call in gate.calls[:3]] == [False, True, False]
        await until(lambda: len(gate.calls) == 5)
        assert [bytes(call.payload) for call in gate.calls[3:]] == [b"\x04", b"\x05"]
        gate.open()
        assert [bytes(await call) for call in (calls[0], calls[2], *held[1:])] == [b"\0", b"\2", b"\4", b"\5"]


async def test_nothing_is_sent_for_calls_that_are_given_up_while_the_connection_is_made() -> None:
    received: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()

    async def listen(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        received.set_result(await reader.read(1024))
        writer.close()

    async with await asyncio.start_server(listen, "127.0.0.1", 0) as server:
        client = RpcClient()
        address = frames.join_address(*server.sockets[0].getsockname())
        first = client.begin(address, "first", b"", timeout_s=60)
        (peer,) = client._peers.values()
        await asyncio.sleep(0)
        assert peer._connecting is not None
        first.cancel()
        await until(lambda: len(peer._connections) == 1)
        second = client.begin(address, "second", b"", timeout_s=60)
        (frame,) = FrameReader(1024).feed(await asyncio.wait_for(received, 5))
        assert [header.method for header, _ in frames.calls_of(frame)] == ["second"]
        with pytest.raises(errors.Unavailable):
            await second
        await client.close()


async def test_a_large_payload_travels_alone_and_no_frame_is_longer_than_it_may_be() -> None:
    gate = Gate()
    async with serving({"gate": gate}) as (_, client, address):
        calls = [client.begin(address, "gate", b"", timeout_s=60) for _ in range(FRAME_CALLS_MAX + 1)]
        calls.append(client.begin(address, "gate", bytes(OWN_FRAME_BYTES + 1), timeout_s=60))
        await until(lambda: len(gate.calls) == len(calls))
        assert sorted(gate.frames) == [1, 1, FRAME_CALLS_MAX]
        gate.open()
        await asyncio.gather(*calls)


async def test_answers_that_are_ready_together_leave_together() -> None:
    gate = Gate()
    async with serving({"gate": gate}) as (_, _, address):
        reader, writer = await asyncio.open_connection(*frames.split_address(address))
        headers = [CallHeader(number, "gate", "", 60_000, 1) for number in range(3)]
        writer.writelines(frames.framed(FrameKind.CALLS, headers, [b"a", b"b", b"c"]))
        await gate.entered.wait()
        gate.open()
        (frame,) = frames.FrameReader().feed(await reader.read(1000))
        assert [bytes(payload) for _, payload in frames.answers_of(frame)] == [b"a", b"b", b"c"]
        writer.close()


async def test_a_call_carries_its_tenant_and_what_its_caller_estimates() -> None:
    gate = Gate()
    async with serving({"gate": gate}) as (_, client, address):
        token = telemetry.tenant.set("t" * 1000)
        calls = [client.begin(address, "gate", b"", timeout_s=60, cost=2.5)]
        telemetry.tenant.reset(token)
        calls.append(client.begin(address, "gate", b"", timeout_s=60))
        await until(lambda: len(gate.calls) == 2)
        assert sorted((len(call.tenant), call.cost) for call in gate.calls) == [(0, 0.0), (128, 2.5)]
        for call in calls:
            call.cancel()
