"""A server and a client of calls on a free port, and methods for tests."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence

from shared.rpc import frames
from shared.rpc.client import RpcClient
from shared.rpc.frames import CallHeader, FrameKind
from shared.rpc.server import Call, RpcServer, Serve

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


def one_call(method: str, number: int) -> list[bytes]:
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
    handlers: dict[str, Handler | Gate], **options: int
) -> AsyncIterator[tuple[RpcServer, RpcClient, str]]:
    methods = {name: handler if isinstance(handler, Gate) else each(handler) for name, handler in handlers.items()}
    server, client = RpcServer(methods, **options), RpcClient()
    address = await server.start("127.0.0.1", 0)
    try:
        yield server, client, address
    finally:
        await client.close()
        await server.close()
