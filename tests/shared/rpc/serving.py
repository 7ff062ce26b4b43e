"""A server and a client of calls on a free port, and methods for tests."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence

from shared.process.cluster_secret import ClusterSecret
from shared.rpc import frames
from shared.rpc.chunks import Answer, ChunkStream
from shared.rpc.client import RpcClient
from shared.rpc.frames import CallHeader, FrameKind
from shared.rpc.server import RpcServer
from shared.rpc.server_call import Call, Serve

Handler = Callable[[memoryview], Awaitable[bytes]]


class Gate:
    """A method whose calls wait until the test lets them go. `frames`: how many came together."""

    def __init__(self) -> None:
        self.entered = asyncio.Event()
        self.calls: list[Call] = []
        self.frames: list[int] = []

    def __call__(self, calls: Sequence[Call]) -> None:
        self.frames.append(len(calls))
        self.calls += calls
        self.entered.set()

    def open(self) -> None:
        for call in self.calls:
            call.answer(bytes(call.payload))

    def abandoned(self) -> bool:
        return bool(self.calls) and all(call.done for call in self.calls)


class InPieces:
    """A method that answers with these pieces, each when the one before was sent. `made`: how many bytes there were."""

    def __init__(self, pieces: Sequence[bytes]) -> None:
        self._pieces = pieces
        self.made = 0
        self.calls: list[Call] = []

    def __call__(self, calls: Sequence[Call]) -> None:
        self.calls += calls
        for call in calls:
            self._send(call, iter(self._pieces[:-1]))

    def _send(self, call: Call, pieces: Iterator[bytes]) -> None:
        piece = next(pieces, None)
        self.made += len(self._pieces[-1] if piece is None else piece)
        if piece is None:
            call.answer(self._pieces[-1])
        else:
            call.chunk(piece, lambda: self._send(call, pieces))


Method = Handler | Gate | InPieces


async def whole(answer: Answer) -> bytes:
    """All of an answer, however it comes."""
    if isinstance(answer, memoryview):
        return bytes(answer)
    return b"".join([bytes(chunk) async for chunk in answer])


def stream_of(answer: Answer) -> ChunkStream:
    """An answer that must have come in chunks."""
    assert isinstance(answer, ChunkStream)
    return answer


def one_call(method: str, number: int) -> list[bytes | memoryview]:
    return frames.framed(FrameKind.CALLS, [CallHeader(number, method, "", 60_000, 0)], ())


async def echo(payload: memoryview) -> bytes:
    return bytes(payload)


def each(handler: Handler) -> Serve:
    """Serves every call by a task of its own."""

    async def answer(call: Call) -> None:
        try:
            call.answer(await handler(call.payload))
        except BaseException as error:
            call.fail(error)

    def serve(calls: Sequence[Call]) -> None:
        for call in calls:
            task = asyncio.create_task(answer(call))
            TASKS.add(task)
            task.add_done_callback(TASKS.discard)

    return serve


TASKS: set[asyncio.Task[None]] = set()


async def until(met: Callable[[], bool]) -> None:
    async with asyncio.timeout(5):
        while not met():  # noqa: ASYNC110 (the other side of a connection is waited for)
            await asyncio.sleep(0.001)


@contextlib.asynccontextmanager
async def serving(
    handlers: Mapping[str, Method], client: RpcClient | None = None, secret: ClusterSecret | None = None, **options: int
) -> AsyncIterator[tuple[RpcServer, RpcClient, str]]:
    """`options` are the server's."""
    methods = {
        name: handler if isinstance(handler, Gate | InPieces) else each(handler) for name, handler in handlers.items()
    }
    server, client = RpcServer(methods, secret=secret, **options), client or RpcClient(secret=secret)
    address = await server.start("127.0.0.1", 0)
    try:
        yield server, client, address
    finally:
        await client.close()
        await server.close()
