"""A server that stops delivers what it has answered."""

from __future__ import annotations

import asyncio
import socket

from shared.rpc import frames
from shared.rpc.frames import AnswerHeader, CallHeader, FrameKind, FrameReader
from shared.rpc.server import RpcServer
from tests.shared.rpc.serving import Gate, each, echo, one_call, until

ANSWER_BYTES = 67_000_000
LONG_ENOUGH_S = 20.0


async def _long(_payload: memoryview) -> bytes:
    return bytes(ANSWER_BYTES)


class _SlowReader:
    """A connection that asks and then reads nothing until it is told to. Its buffer in the kernel is small, so that a
    long answer stays with the server.
    """

    def __init__(self, address: str) -> None:
        host, port = frames.split_address(address)
        self._socket = socket.socket()
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 64 * 1024)
        self._socket.connect((host, port))
        self._socket.setblocking(False)

    async def send(self, buffers: list[bytes | memoryview]) -> None:
        await asyncio.get_running_loop().sock_sendall(self._socket, b"".join(buffers))

    async def read_all(self) -> bytes:
        """What comes until the server closes the connection or has sent nothing for a while."""
        found = bytearray()
        loop = asyncio.get_running_loop()
        while data := await asyncio.wait_for(loop.sock_recv(self._socket, 1 << 20), LONG_ENOUGH_S):
            found += data
        return bytes(found)

    def close(self) -> None:
        self._socket.close()


def _answers(wire: bytes) -> list[tuple[AnswerHeader, int]]:
    """The answers in what a server sent: headers and the lengths of the payloads. The last frame is whole."""
    reader = FrameReader()
    found = [
        (header, len(payload))
        for frame in reader.feed(wire)
        if frame.kind is FrameKind.ANSWERS
        for header, payload in frames.answers_of(frame)
    ]
    assert not reader._partial, "the last frame is cut off"
    return found


async def test_an_answer_that_a_slow_client_has_not_read_yet_arrives_whole() -> None:
    server = RpcServer({"long": each(_long)})
    client = _SlowReader(await server.start("127.0.0.1", 0))
    await client.send(one_call("long", 1))
    await until(lambda: any(connection._transport.get_write_buffer_size() for connection in server.connections))  # type: ignore[union-attr]

    async def stop() -> None:
        await server.drain(LONG_ENOUGH_S)
        await server.close()

    stopping = asyncio.create_task(stop())
    await asyncio.sleep(0.2)  # time enough to throw it away
    assert _answers(await client.read_all()) == [(AnswerHeader(1, ANSWER_BYTES), ANSWER_BYTES)]
    client.close()
    await asyncio.wait_for(stopping, LONG_ENOUGH_S)


async def test_a_client_that_reads_nothing_holds_up_draining_no_longer_than_its_deadline() -> None:
    server = RpcServer({"long": each(_long)})
    client = _SlowReader(await server.start("127.0.0.1", 0))
    await client.send(one_call("long", 1))
    await until(lambda: any(connection._transport.get_write_buffer_size() for connection in server.connections))  # type: ignore[union-attr]
    await server.drain(0.3)
    assert server.connections, "drained although the answer was not taken"
    await server.close()
    await until(lambda: not server.connections)
    client.close()


async def test_an_answer_in_pieces_of_which_the_last_is_not_made_yet_arrives_whole() -> None:
    held = Gate()
    server = RpcServer({"held": held})
    reader, writer = await asyncio.open_connection(*frames.split_address(await server.start("127.0.0.1", 0)))
    writer.writelines(one_call("held", 1))
    await held.entered.wait()
    wanted = asyncio.Event()
    held.calls[0].chunk(b"the beginning", wanted.set)
    await wanted.wait()
    draining = asyncio.create_task(server.drain(LONG_ENOUGH_S))
    done, _ = await asyncio.wait([draining], timeout=0.1)
    assert not done
    held.calls[0].chunk(b"the middle", lambda: held.calls[0].answer(b"the end"))
    assert [length for _, length in _answers(await asyncio.wait_for(reader.read(), LONG_ENOUGH_S))] == [13, 10, 7]
    writer.close()
    await asyncio.wait_for(draining, LONG_ENOUGH_S)


async def test_calls_that_come_when_the_last_answer_is_on_its_way_cost_the_client_nothing_of_it() -> None:
    """A socket that is closed with unread bytes in it is reset, and what it still had to deliver is lost."""
    server = RpcServer({"long": each(_long), "echo": each(echo)})
    client = _SlowReader(await server.start("127.0.0.1", 0))
    await client.send(one_call("long", 1))
    await until(lambda: any(connection._transport.get_write_buffer_size() for connection in server.connections))  # type: ignore[union-attr]
    draining = asyncio.create_task(server.drain(LONG_ENOUGH_S))
    await asyncio.sleep(0.05)
    headers = [CallHeader(number, "echo", "", 60_000, 1) for number in range(2, 50)]
    await client.send(frames.framed(FrameKind.CALLS, headers, [b"x"] * len(headers)))
    answers = _answers(await client.read_all())
    assert answers[0] == (AnswerHeader(1, ANSWER_BYTES), ANSWER_BYTES)
    assert {header.code for header, _ in answers[1:]} <= {"wrong_worker"}, "taken up by a server that is leaving"
    client.close()
    await asyncio.wait_for(draining, LONG_ENOUGH_S)
