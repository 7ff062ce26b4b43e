"""An event loop on virtual time, whose order is drawn from a seed.

Every callback belongs to a process (`Process`), by the context that it runs in: what a process starts is its own. The
callbacks of one process run in the order in which they were scheduled, as asyncio promises; which process runs next is
drawn. When nobody has anything to do, time jumps to the next timer. So a run is a function of its seed, and takes no
longer than its callbacks do.

A process may be paused: its callbacks and timers are kept until it goes on, as after SIGSTOP. Work for threads is done
on the loop, whole, after a delay that is drawn.
"""

from __future__ import annotations

import asyncio
import contextvars
import heapq
import itertools
import math
import random
from collections import deque
from collections.abc import Coroutine, Generator
from typing import Any, Final, TypeVar

T = TypeVar("T")

THREAD_S_MAX: Final = 0.004
"""Longest time that work in a thread takes, in virtual seconds."""

TURNS: Final = 64
BURSTS: Final = (1, 2, 8, 32)
"""Numbers of callbacks that a process runs in a row."""


class Stuck(Exception):
    """Nothing is left to do, and the run has not ended."""


class Process:
    """What runs together, is paused together and dies together: its callbacks in their order."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.ready: deque[asyncio.Handle] = deque()
        self.paused_until_s = 0.0
        self.alive = True
        self.generation = 0
        """Number of crashes."""
        self.pause_at_io: tuple[int, float] | None = None
        """After so many more inputs and outputs, a pause of so many seconds."""

    def context(self) -> contextvars.Context:
        """A context whose callbacks are this process's."""
        context = contextvars.copy_context()
        context.run(CURRENT.set, self)
        return context

    def __repr__(self) -> str:
        return self.name


CURRENT: Final[contextvars.ContextVar[Process]] = contextvars.ContextVar("process")


class SimulatedTask(asyncio.Task[Any]):
    """A task of a process. Its hash is a number, so that sets of tasks have the same order in every run."""

    def __init__(self, coroutine: Any, loop: SimulatedLoop, context: contextvars.Context | None, name: str) -> None:
        self.number = next(loop.numbers)
        self.process = (context or contextvars.copy_context()).get(CURRENT, loop.host)
        super().__init__(coroutine, loop=loop, name=name, context=context)

    def __hash__(self) -> int:
        return self.number

    def __eq__(self, other: object) -> bool:
        return self is other


class SimulatedFuture(asyncio.Future[Any]):
    """A future whose hash is a number, for the same reason."""

    def __init__(self, loop: SimulatedLoop) -> None:
        self.number = next(loop.numbers)
        super().__init__(loop=loop)

    def __hash__(self) -> int:
        return self.number

    def __eq__(self, other: object) -> bool:
        return self is other


class SimulatedLoop(asyncio.BaseEventLoop):
    """The loop of one run. `chance` draws everything about the order in which things happen."""

    def __init__(self, seed: int) -> None:
        super().__init__()
        self.chance = random.Random(f"order {seed}")
        self.numbers = itertools.count(1)
        self.host = Process("host")
        self.processes = [self.host]
        self.network: Any = None
        """Serves `create_connection` and `create_server` (`tests.simulation.network`)."""
        self._now_s = 0.0
        self._timers: list[tuple[float, int, asyncio.TimerHandle]] = []

    def new_process(self, name: str) -> Process:
        process = Process(name)
        self.processes.append(process)
        return process

    _stopping: bool

    # ---- time and order

    def time(self) -> float:
        return self._now_s

    def call_soon(  # type: ignore[override] # typed with a TypeVarTuple, as the others are
        self, callback: Any, *args: Any, context: contextvars.Context | None = None
    ) -> asyncio.Handle:
        handle = asyncio.Handle(callback, args, self, context)
        self._queue(handle)
        return handle

    call_soon_threadsafe = call_soon  # type: ignore[assignment]

    def call_later(  # type: ignore[override]
        self, delay: float, callback: Any, *args: Any, context: contextvars.Context | None = None
    ) -> asyncio.TimerHandle:
        return self.call_at(self._now_s + delay, callback, *args, context=context)

    def call_at(  # type: ignore[override]
        self, when: float, callback: Any, *args: Any, context: contextvars.Context | None = None
    ) -> asyncio.TimerHandle:
        timer = asyncio.TimerHandle(when, callback, args, self, context)
        heapq.heappush(self._timers, (when, next(self.numbers), timer))
        return timer

    def _queue(self, handle: Any) -> None:
        process: Process = handle._context.get(CURRENT, self.host)
        process.ready.append(handle)

    def _run_once(self) -> None:
        """Runs a few callbacks of one process after the other, or lets time pass; returns now and then."""
        timers, draw = self._timers, self.chance.random
        for _ in range(TURNS):
            now_s = self._now_s
            while timers and timers[0][0] <= now_s:
                self._queue(heapq.heappop(timers)[2])
            runnable = [process for process in self.processes if process.ready and process.paused_until_s <= now_s]
            if not runnable:
                self._let_time_pass()
                continue
            process = runnable[0] if len(runnable) == 1 else runnable[int(draw() * len(runnable))]
            ready = process.ready
            for _ in range(BURSTS[int(draw() * len(BURSTS))]):
                handle: Any = ready.popleft()
                if not handle._cancelled:
                    handle._run()
                if not ready or process.paused_until_s > now_s or self._stopping:
                    break
            if self._stopping:
                return

    def _let_time_pass(self) -> None:
        timers = self._timers
        while timers and timers[0][2].cancelled():
            heapq.heappop(timers)
        next_s = timers[0][0] if timers else math.inf
        for process in self.processes:
            if process.ready and process.paused_until_s < next_s:
                next_s = process.paused_until_s
        if next_s == math.inf:
            raise Stuck
        self._now_s = max(self._now_s, next_s)

    # ---- what tasks, threads and connections come from

    def create_future(self) -> asyncio.Future[Any]:
        return SimulatedFuture(self)

    def create_task(
        self,
        coro: Generator[Any, None, T] | Coroutine[Any, Any, T],
        *,
        name: object = None,
        context: contextvars.Context | None = None,
    ) -> asyncio.Task[T]:
        return SimulatedTask(coro, self, context, str(name or "task"))

    def tasks_of(self, process: Process) -> list[SimulatedTask]:
        """The tasks of a process that have not ended, in the order of their creation."""
        found = [task for task in asyncio.all_tasks(self) if isinstance(task, SimulatedTask)]
        return sorted((task for task in found if task.process is process), key=lambda task: task.number)

    def run_in_executor(self, executor: Any, func: Any, *args: Any) -> asyncio.Future[Any]:  # type: ignore[override]
        future = self.create_future()

        def work() -> None:
            try:
                result = func(*args)
            except BaseException as error:
                if not future.done():
                    future.set_exception(error)
            else:
                if not future.done():
                    future.set_result(result)

        self.call_later(self.chance.random() * THREAD_S_MAX, work)
        return future

    async def create_connection(self, protocol_factory: Any, host: Any = None, port: Any = None, **_: Any) -> Any:
        return await self.network.connect(protocol_factory, int(port))

    async def create_server(self, protocol_factory: Any, host: Any = None, port: Any = None, **_: Any) -> Any:
        return self.network.listen(protocol_factory, str(host), int(port or 0))

    def _write_to_self(self) -> None:
        """There is no selector to wake."""

    def _process_events(self, event_list: Any) -> None:
        """There is no selector whose events to process."""
