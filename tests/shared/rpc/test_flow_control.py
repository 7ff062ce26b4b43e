"""No more of a long answer is under way than its reader keeps up with, and none of it is in the way of others."""

from __future__ import annotations

import asyncio
import time

import pytest

from shared import errors, limits
from shared.rpc import server_connection
from shared.rpc.answer_budget import FIRST_WINDOW_BYTES, GRANT_BYTES_MIN, WINDOW_BYTES, WINDOW_BYTES_MIN
from shared.rpc.chunks import ChunkStream
from shared.rpc.client import RpcClient
from shared.rpc.server import RpcServer
from shared.rpc.server_connection import ServerConnection
from tests.shared.rpc.serving import Gate, InPieces, Method, echo, serving, stream_of, until, whole

MIB = 1 << 20


def _pieces(size: int, piece: int = MIB) -> InPieces:
    return InPieces([bytes(piece)] * (size // piece))


async def _settled(client: RpcClient) -> None:
    """Until nothing comes any more."""
    before = -1
    while before != (before := _arrived(client)):  # noqa: ASYNC110 (the other side of a connection is waited for)
        await asyncio.sleep(0.05)


async def _read_slowly(stream: ChunkStream) -> None:
    async for _ in stream:
        await asyncio.sleep(0.02)


def _arrived(client: RpcClient) -> int:
    return sum(
        call.stream._held for peer in client._peers.values() for call in peer.streaming if call.stream is not None
    )


async def test_of_an_answer_that_is_not_read_a_window_arrives_and_the_rest_is_not_even_made() -> None:
    pieces = _pieces(100 * MIB)
    async with serving({"pieces": pieces}) as (_, client, address):
        stream = stream_of(await client.begin_chunks(address, "pieces", b"", timeout_s=60))
        await _settled(client)
        assert _arrived(client) == client.answers.held == WINDOW_BYTES
        assert pieces.made <= WINDOW_BYTES + MIB
        assert len(await whole(stream)) == 100 * MIB
        assert client.answers.held == 0


async def test_a_slow_reader_of_a_long_answer_holds_up_no_other_call_on_its_connection() -> None:
    """A client that reads 10 MB of 50 in a second, and one that reads nothing, on the only connection there is. While
    another call is under way neither reads: were it behind their answers, it would never be answered.
    """
    client = RpcClient(connections_per_address=1)
    methods: dict[str, Method] = {"pieces": _pieces(50 * MIB), "echo": echo}
    async with serving(methods, client) as (server, client, address):
        slow, _stalled = [stream_of(await client.begin_chunks(address, "pieces", b"", timeout_s=60)) for _ in range(2)]
        await _settled(client)
        read, ends_s = 0, time.monotonic() + 1.0
        while time.monotonic() < ends_s:
            read += len(await anext(slow))
            assert bytes(await client.call(address, "echo", b"x", timeout_s=5)) == b"x"
            assert client.answers.held <= 2 * WINDOW_BYTES
            await asyncio.sleep(FIRST_WINDOW_BYTES / (10 * MIB))
        assert len(server.connections) == 1
        assert read < 20 * MIB


async def test_many_answers_together_stay_within_the_budget_and_each_of_them_gets_on() -> None:
    budget = 4 * MIB
    client = RpcClient(answers_bytes_max=budget)
    most = 0

    async def read(stream: ChunkStream) -> int:
        nonlocal most
        size = 0
        async for chunk in stream:
            size += len(chunk)
            most = max(most, client.answers.held)
            await asyncio.sleep(0)
        return size

    async with serving({"pieces": _pieces(5 * MIB)}, client) as (_, client, address):
        answers = [client.begin_chunks(address, "pieces", b"", timeout_s=60) for _ in range(20)]
        streams = [stream_of(answer) for answer in await asyncio.gather(*answers)]
        await _settled(client)
        assert client.answers.held <= budget + len(streams) * FIRST_WINDOW_BYTES
        assert await asyncio.gather(*map(read, streams)) == [5 * MIB] * len(streams)
        assert most <= budget + len(streams) * FIRST_WINDOW_BYTES
        assert client.answers.held == 0


async def test_an_answer_for_which_there_is_no_memory_waits_until_another_is_closed() -> None:
    client = RpcClient(answers_bytes_max=WINDOW_BYTES_MIN)
    async with serving({"pieces": _pieces(10 * MIB)}, client) as (_, client, address):
        first, second = [stream_of(await client.begin_chunks(address, "pieces", b"", timeout_s=0.2)) for _ in range(2)]
        await _settled(client)
        reading = asyncio.create_task(whole(second))
        done, _ = await asyncio.wait([reading], timeout=0.5)
        assert not done, "waiting for memory counts as nobody's slowness, and for no memory as none"
        first.close()
        assert len(await asyncio.wait_for(reading, 5)) == 10 * MIB
        assert client.answers.held == 0


async def test_clients_that_read_nothing_leave_memory_to_others_until_there_are_very_many() -> None:
    """Fifty of them hold less than half of the default budget."""
    async with serving({"pieces": _pieces(10 * MIB)}) as (_, client, address):
        begun = [client.begin_chunks(address, "pieces", b"", timeout_s=60) for _ in range(50)]
        stalled = [stream_of(answer) for answer in await asyncio.gather(*begun)]
        await _settled(client)
        assert client.answers.held < limits.ANSWERS_BYTES_MAX / 2
        stream = stream_of(await client.begin_chunks(address, "pieces", b"", timeout_s=60))
        assert len(await asyncio.wait_for(whole(stream), 5)) == 10 * MIB
        for each in stalled:
            each.close()
        assert client.answers.held == 0
        assert client.answers.window == WINDOW_BYTES


async def test_waiting_answers_get_their_turn_in_order() -> None:
    client = RpcClient(answers_bytes_max=WINDOW_BYTES_MIN)
    async with serving({"pieces": _pieces(4 * MIB)}, client) as (_, client, address):
        streams = [stream_of(await client.begin_chunks(address, "pieces", b"", timeout_s=60)) for _ in range(4)]
        ended: list[int] = []

        async def read(number: int) -> None:
            await whole(streams[number])
            ended.append(number)

        readers = [asyncio.create_task(read(number)) for number in (1, 2, 3)]
        await _settled(client)
        assert ended == []
        streams[0].close()
        await asyncio.wait_for(asyncio.gather(*readers), 10)
        assert sorted(ended) == [1, 2, 3]


async def test_a_caller_that_takes_nothing_for_long_is_given_up_by_the_server(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "RPC_UNREAD_S_MAX", 0.3)
    pieces = _pieces(10 * MIB)
    async with serving({"pieces": pieces}) as (server, client, address):
        stream = stream_of(await client.begin_chunks(address, "pieces", b"", timeout_s=60))
        await until(lambda: pieces.calls[0].done)
        assert server.unsent.total == 0
        with pytest.raises(errors.DeadlineExceeded):
            await whole(stream)
        assert client.answers.held == 0


async def test_an_answer_that_is_read_all_the_time_ends_when_it_takes_too_long(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "RPC_ANSWER_S_MAX", 0.3)
    pieces = _pieces(50 * MIB)
    async with serving({"pieces": pieces}) as (server, client, address):
        stream = stream_of(await client.begin_chunks(address, "pieces", b"", timeout_s=60))
        with pytest.raises(errors.DeadlineExceeded):
            await _read_slowly(stream)
        assert server.unsent.total == 0


async def test_a_server_that_holds_too_much_for_slow_callers_gives_up_the_slowest() -> None:
    async with serving({"echo": echo}) as (server, client, address):
        server.unsent._bytes_max = 25 * MIB
        streams = []
        for _ in range(3):
            streams.append(stream_of(await client.begin_chunks(address, "echo", bytes(10 * MIB), timeout_s=60)))
            await _settled(client)
            if len(streams) == 2:
                await anext(streams[0])  # so the second is the one that has stood still for longest
                await anext(streams[0])
                for _ in range(8):
                    await anext(streams[0])
                await _settled(client)
        with pytest.raises(errors.Unavailable, match="not read"):
            await whole(streams[1])
        assert len(await whole(streams[2])) == 10 * MIB
        await whole(streams[0])
        assert server.unsent.total == 0


async def test_calls_are_taken_up_however_many_answers_wait_for_their_readers() -> None:
    """Credit comes over the same connection as calls: a server that read no more of it would wait for ever."""
    client = RpcClient(connections_per_address=1)
    methods: dict[str, Method] = {"pieces": _pieces(3 * MIB), "echo": echo}
    async with serving(methods, client, calls_max=4) as (_, client, address):
        streams = [stream_of(await client.begin_chunks(address, "pieces", b"", timeout_s=60)) for _ in range(8)]
        await _settled(client)
        assert bytes(await client.call(address, "echo", b"x", timeout_s=5)) == b"x"
        read = await asyncio.gather(*map(whole, streams))
        assert [len(answer) for answer in read] == [3 * MIB] * 8


async def test_a_peer_that_reads_none_of_its_answers_gets_no_more_calls_served() -> None:
    gate, client = Gate(), RpcClient(connections_per_address=1)
    async with serving({"echo": echo, "gate": gate}, client) as (server, client, address):
        await client.call(address, "echo", b"", timeout_s=5)
        (peer,) = client._peers.values()
        (connection,) = peer._connections
        assert connection._transport is not None
        connection._transport.pause_reading()
        begun = client.begin(address, "echo", bytes(40 * MIB), timeout_s=60)
        (serving_connection,) = server.connections
        await until(lambda: serving_connection._is_unread)
        late = client.begin(address, "gate", b"", timeout_s=60)
        await asyncio.sleep(0.1)
        assert not gate.calls
        connection._transport.resume_reading()
        assert len(await begun) == 40 * MIB
        await gate.entered.wait()
        gate.open()
        await late


async def test_a_long_answer_gets_on_while_a_server_takes_up_no_more_calls() -> None:
    """Its credit comes behind calls that wait. A server that did not read them would not see it, and the system would
    give the connection up after some seconds.
    """
    gate, client = Gate(), RpcClient(connections_per_address=1)
    async with serving({"pieces": _pieces(10 * MIB), "gate": gate}, client, calls_max=4) as (_, client, address):
        stream = stream_of(await client.begin_chunks(address, "pieces", b"", timeout_s=60))
        calls = [client.begin(address, "gate", bytes(8 * MIB), timeout_s=60) for _ in range(6)]
        await until(lambda: len(gate.calls) == 4)
        assert len(await asyncio.wait_for(whole(stream), 5)) == 10 * MIB
        assert len(gate.calls) == 4
        while len(gate.calls) < 6:
            gate.open()
            await asyncio.sleep(0.01)
        gate.open()
        assert [len(answer) for answer in await asyncio.gather(*calls)] == [8 * MIB] * 6


async def test_calls_that_wait_to_be_taken_up_can_be_cancelled_and_are_refused_by_a_server_that_drains() -> None:
    gate, client = Gate(), RpcClient(connections_per_address=1)
    async with serving({"gate": gate}, client, calls_max=1) as (server, client, address):
        first, unwanted, late = [client.begin(address, "gate", b"", timeout_s=60) for _ in range(3)]
        (connection,) = await _connections(server)
        await until(lambda: len(connection._waiting) == 2)
        unwanted.cancel()
        await until(lambda: len(connection._waiting) == 1)
        draining = asyncio.create_task(server.drain(30))
        with pytest.raises(errors.WrongWorker):
            await late
        assert connection._waiting.bytes == 0
        assert len(gate.calls) == 1
        gate.open()
        await first
        await draining


async def test_what_waits_to_be_taken_up_is_bounded_and_more_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server_connection, "WAITING_BYTES_MAX", MIB)
    gate, client = Gate(), RpcClient(connections_per_address=1)
    async with serving({"gate": gate}, client, calls_max=1) as (server, client, address):
        kept = [client.begin(address, "gate", bytes(MIB), timeout_s=60) for _ in range(2)]
        with pytest.raises(errors.Unavailable, match="too many calls"):
            await client.call(address, "gate", b"", timeout_s=60)
        (connection,) = await _connections(server)
        assert connection._is_reading
        while not all(call.done() for call in kept):
            gate.open()
            await asyncio.sleep(0.01)
        assert connection._waiting.bytes == 0


async def _connections(server: RpcServer) -> set[ServerConnection]:
    await until(lambda: bool(server.connections))
    return server.connections


def test_grants_are_no_smaller_than_slices_are_worth() -> None:
    assert GRANT_BYTES_MIN <= FIRST_WINDOW_BYTES <= WINDOW_BYTES
