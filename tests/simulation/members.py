"""The processes of a simulated cluster: each opens its real service, runs its loops, and is started anew at its end."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from dataclasses import dataclass
from typing import Any, Final, TypeVar

import frontend.service
from frontend.config import FrontendConfig
from frontend.context import Context
from frontend.read.point_in_time import PointInTimeReader
from frontend.read.reader import Reader
from frontend.write.transactions import Committer
from shared.errors import Unavailable, UnknownOutcome
from tests.simulation.loop import CURRENT, Process, SimulatedLoop
from tests.simulation.network import Network

T = TypeVar("T")

RETRY_OPEN_S: Final = 0.3
RESTART_S: Final = 0.5
"""Pauses before a service is opened again, and before a process that ended by itself is started anew."""

Open = Callable[[], AbstractAsyncContextManager[Any]]


class Member:
    """A process of the cluster over all its lives. `service` is what it opened, None while it has not."""

    def __init__(
        self, loop: SimulatedLoop, network: Network, name: str, open_service: Open, trace: Callable[[str], None]
    ) -> None:
        self.name = name
        self.service: Any = None
        self.process: Process | None = None
        self.deaths: list[BaseException] = []
        """What ended it when nobody crashed it."""
        self.serving = 0
        """Calls that it is working on."""
        self._loop = loop
        self._network = network
        self._open_service = open_service
        self._trace = trace
        self._lives = 0
        self._calls: dict[asyncio.Future[Any], None] = {}

    def start(self) -> None:
        self._lives += 1
        self.process = self._loop.new_process(f"{self.name}.{self._lives}")
        self._trace(f"start {self.process}")
        self._loop.create_task(self._live(self.process), context=self.process.context())

    async def _live(self, process: Process) -> None:
        try:
            async with AsyncExitStack() as stack:
                service = await self._open(stack)
                self.service = service
                async with asyncio.TaskGroup() as group:
                    for each in service.loops:
                        group.create_task(each())
        except Exception as error:  # a defect, or damage that it refuses to go on with: the supervisor starts it anew
            if process.alive:
                self.deaths += leaves_of(error)
                self._trace(f"died {process} {[f'{type(leaf).__name__} {leaf}' for leaf in leaves_of(error)]}")
                self._loop.call_later(RESTART_S, self._restart, process, context=self._loop.host.context())

    def _restart(self, process: Process) -> None:
        if self.process is process:
            self.crash()
            self.start()

    async def _open(self, stack: AsyncExitStack) -> Any:
        while True:
            try:
                return await stack.enter_async_context(self._open_service())
            except (Unavailable, ConnectionError, TimeoutError):
                await asyncio.sleep(RETRY_OPEN_S)

    def crash(self) -> None:
        """Ends the process at once: first it is off the network and the bucket, then its tasks are cancelled, so that
        nothing of what they do at their end reaches anybody.
        """
        process, self.process, self.service = self.process, None, None
        if process is None:
            return
        self._trace(f"crash {process}")
        process.alive = False
        self.serving = 0
        process.paused_until_s = 0.0
        process.pause_at_io = None
        self._network.forsake(process, silently_s=0.05)
        for outcome in list(self._calls):
            if not outcome.done():
                outcome.set_exception(UnknownOutcome("the frontend is gone"))
        for task in self._loop.tasks_of(process):
            task.cancel()

    async def call(self, work: Callable[[Any], Awaitable[T]], *, timeout_s: float) -> T:
        """The result of `work(service)`, done in this process for a client elsewhere. Raises Unavailable when it is
        known not to have been begun, UnknownOutcome when the client does not know.
        """
        await asyncio.sleep(self._network.delay_s())
        if self.service is None or self.process is None:
            raise Unavailable("the frontend is away")
        outcome = self._loop.create_future()
        self._calls[outcome] = None
        service, process, client = self.service, self.process, CURRENT.get()

        def settle(result: Any, error: Exception | None) -> None:
            if outcome.done():
                return
            if error is not None:
                outcome.set_exception(error)
            else:
                outcome.set_result(result)

        async def serve() -> None:
            result, error = None, None
            try:
                result = await work(service)
            except Exception as found:
                error = found
            finally:
                self.serving -= process.alive  # a dead one serves nothing, whatever it had not even begun
            if process.alive:
                self._loop.call_later(self._network.delay_s(), settle, result, error, context=client.context())

        self.serving += 1
        self._loop.create_task(serve(), context=process.context())
        try:
            async with asyncio.timeout(timeout_s):
                answer: T = await outcome
                return answer
        except TimeoutError:
            raise UnknownOutcome("the frontend did not answer") from None
        finally:
            self._calls.pop(outcome, None)


def leaves_of(error: BaseException) -> list[BaseException]:
    """The error, or those in a group of errors."""
    if isinstance(error, BaseExceptionGroup):
        return [leaf for each in error.exceptions for leaf in leaves_of(each)]
    return [error]


@dataclass
class Frontend:
    """A frontend without its HTTP server."""

    context: Context
    reader: Reader
    point_in_time: PointInTimeReader
    committer: Committer
    loops: Sequence[Callable[[], Coroutine[Any, Any, None]]]


@contextlib.asynccontextmanager
async def open_frontend(config: FrontendConfig) -> AsyncIterator[Frontend]:
    """A frontend as its service opens it, but for what speaks HTTP, which `tests.simulation.determinism` leaves out."""
    async with frontend.service.open_service(config) as service:
        context = service._context
        reader = Reader(context.workers, context.rows, context.log)
        committer = Committer(context.log, context.dirty, context.workers, context.durable)
        yield Frontend(context, reader, PointInTimeReader(context.log, reader), committer, service.loops)


class NoHttpServer:
    """In the place of what `open_http_server` and `open_http` open."""

    tls = None

    def __init__(self, *_given: object) -> None:
        """Takes whatever they are given."""

    async def __aenter__(self) -> NoHttpServer:
        return self

    async def __aexit__(self, *_error: object) -> None:
        """There is nothing to close."""

    async def close_silent_connections(self) -> None:
        """A loop, for ever: there are none."""
        await asyncio.get_running_loop().create_future()
