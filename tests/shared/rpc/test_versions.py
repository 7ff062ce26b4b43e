"""Peers of the version before, which know neither windows nor credit, are understood and understand."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import NamedTuple

import msgspec

from shared.rpc import frames
from shared.rpc.client import RpcClient
from shared.rpc.frames import FrameKind, FrameReader
from tests.shared.rpc.serving import InPieces, echo, serving, stream_of, whole

LONG = bytes(range(256)) * 20_000
PIECES = [b"a" * 3_000_000, b"b", b"c" * 500_000]


class OldCallHeader(msgspec.Struct, frozen=True, array_like=True):
    number: int
    method: str
    request_id: str
    timeout_ms: int
    payload_bytes: int


class OldAnswerHeader(msgspec.Struct, frozen=True, array_like=True):
    number: int
    payload_bytes: int
    code: str = ""
    message: str = ""
    more: bool = False


class _Received(NamedTuple):
    header: OldAnswerHeader
    payload: bytes


def _frame(kind: FrameKind, headers: list[OldCallHeader] | list[OldAnswerHeader], payload: bytes) -> bytes:
    encoded = msgspec.msgpack.encode(headers)
    head = frames.MAGIC + bytes([frames.VERSION, kind])
    return head + len(encoded).to_bytes(4, "big") + len(payload).to_bytes(4, "big") + encoded + payload


async def _old_call(address: str, method: str, payload: bytes) -> list[_Received]:
    """The answers that a client of the version before gets to one call."""
    reader, writer = await asyncio.open_connection(*frames.split_address(address))
    writer.write(_frame(FrameKind.CALLS, [OldCallHeader(1, method, "", 60_000, len(payload))], payload))
    decoder, incoming = msgspec.msgpack.Decoder(list[OldAnswerHeader]), FrameReader()
    found: list[_Received] = []
    while not found or found[-1].header.more:
        for frame in incoming.feed(await asyncio.wait_for(reader.read(1 << 20), 5)):
            assert frame.kind in (FrameKind.ANSWERS, FrameKind.CANCEL, FrameKind.LEAVING), "not a kind that it knows"
            (header,) = decoder.decode(frame.header)
            found.append(_Received(header, bytes(frame.payload)))
    writer.close()
    return found


async def test_an_old_client_gets_a_long_answer_as_a_whole() -> None:
    async with serving({"echo": echo}) as (_, _, address):
        (answer,) = await _old_call(address, "echo", LONG)
        assert answer == (OldAnswerHeader(1, len(LONG)), LONG)


async def test_an_old_client_gets_chunks_where_the_method_answers_in_chunks_and_all_of_them_without_credit() -> None:
    async with serving({"pieces": InPieces(PIECES)}) as (_, _, address):
        answers = await _old_call(address, "pieces", b"")
        assert b"".join(answer.payload for answer in answers) == b"".join(PIECES)


@asynccontextmanager
async def _old_server(answer: Callable[[int, bytes], list[bytes]]) -> AsyncIterator[str]:
    """A server of the version before, which drops a connection on which a frame comes that it does not know."""

    connections: set[asyncio.Task[None] | None] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connections.add(asyncio.current_task())
        decoder, incoming = msgspec.msgpack.Decoder(list[OldCallHeader]), FrameReader()
        while data := await reader.read(1 << 20):
            for frame in incoming.feed(data):
                if frame.kind is FrameKind.CREDIT:
                    writer.transport.abort()
                    return
                if frame.kind is FrameKind.CALLS:
                    for header in decoder.decode(frame.header):
                        writer.writelines(answer(header.number, bytes(frame.payload)))
                        await writer.drain()
        writer.close()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        yield frames.join_address(*server.sockets[0].getsockname())
        await asyncio.gather(*filter(None, connections))


def _in_pieces(number: int, _payload: bytes) -> list[bytes]:
    last = len(PIECES) - 1
    return [
        _frame(FrameKind.ANSWERS, [OldAnswerHeader(number, len(piece), more=place < last)], piece)
        for place, piece in enumerate(PIECES)
    ]


def _echoed(number: int, payload: bytes) -> list[bytes]:
    return [_frame(FrameKind.ANSWERS, [OldAnswerHeader(number, len(payload))], payload)]


async def _with_client(address: str, use: Callable[[RpcClient, str], Awaitable[None]]) -> None:
    client = RpcClient()
    try:
        await use(client, address)
        assert client.answers.held == 0
    finally:
        await client.close()


async def test_an_old_server_answers_as_a_whole_and_is_granted_nothing() -> None:
    async def use(client: RpcClient, address: str) -> None:
        answer = await client.begin_chunks(address, "echo", LONG, timeout_s=5)
        assert isinstance(answer, memoryview)
        assert answer == LONG

    async with _old_server(_echoed) as address:
        await _with_client(address, use)


async def test_the_chunks_of_an_old_server_are_counted_and_it_is_granted_nothing() -> None:
    async def use(client: RpcClient, address: str) -> None:
        stream = stream_of(await client.begin_chunks(address, "pieces", b"", timeout_s=5))
        await asyncio.sleep(0.2)
        assert client.answers.held == sum(map(len, PIECES))
        assert await whole(stream) == b"".join(PIECES)
        again = await client.begin_chunks(address, "pieces", b"", timeout_s=5)
        assert await whole(again) == b"".join(PIECES)

    async with _old_server(_in_pieces) as address:
        await _with_client(address, use)
