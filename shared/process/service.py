"""The life of a process, the same for all roles.

1. Read the configuration; a wrong one ends the process with all its problems (exit code 2).
2. Start the admin endpoint: `/livez` answers from here on, `/readyz` only while the service is ready. Both answer
   anybody; on an address that others can reach, the rest needs the cluster secret (`shared.process.admin_access`).
3. Open the service, an async context manager. While something it needs is away (`Unavailable`), or a disk is full, try
   again with backoff.
4. Run its loops. A loop that dies, or returns, takes the process down (exit code 1): the supervisor starts a fresh one.
5. On SIGTERM or SIGINT: readiness off, `drain()`, loops cancelled, context manager closed, exit code 0. One deadline
   holds for all of it (`shared.process.stopping`); a stop that is cut short by it has exit code 1. A second signal ends
   the process at once.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import faulthandler
import gc
import os
import random
import signal
import socket
import sys
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from typing import Any, Final, Protocol, TypeVar

import uvloop
from aiohttp import web
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from shared.errors import Unavailable
from shared.process import disk, open_files, telemetry
from shared.process.admin_access import AdminAccess
from shared.process.concurrency import cancellations
from shared.process.config import ConfigError, ProcessConfig, read
from shared.process.memory import trim_when_idle, use_one_arena
from shared.process.stopping import closed_after_s, ended_after_s

GC_CONTAINERS: Final = 20_000
"""New containers after which the garbage collector looks for cycles among the young ones."""

ADMIN_CLOSE_S: Final = 1.0
"""Longest time that closing the admin endpoint waits for its requests, in seconds."""

OPEN_BACKOFF_FIRST_S: Final = 0.1
OPEN_BACKOFF_MAX_S: Final = 0.5
OPEN_EXPECTED_S: Final = 10.0
"""Time that a process may wait for others at its start before it warns, in seconds. A healthy start has such waits:
the log service compares Redis with the bucket first."""

log = telemetry.get_logger(__name__)
C = TypeVar("C", bound=ProcessConfig)


class Service(Protocol):
    """The work of a process between opening and closing its resources."""

    @property
    def loops(self) -> Sequence[Callable[[], Coroutine[Any, Any, None]]]:
        """Background work, each for ever; started once, cancelled after `drain`."""
        ...

    def ready(self) -> bool:
        """Whether work should be sent here now."""
        ...

    async def drain(self) -> None:
        """Takes no new work and finishes what has begun. Cancelled after `drain_timeout_s`: what is still to be done
        then is done before that, or when the service is closed.
        """
        ...


OpenService = Callable[[C], AbstractAsyncContextManager[Service]]


def main(role: str, config_type: type[C], open_service: OpenService[C]) -> None:
    """Run one process until it is told to stop. Never returns."""
    try:
        config = read(config_type, os.environ)
    except ConfigError as error:
        sys.stderr.write("".join(f"{problem}\n" for problem in error.problems))
        sys.exit(2)
    if not config.process_id:
        config = dataclasses.replace(config, process_id=f"{role}-{socket.gethostname()}-{os.getpid()}")
    telemetry.configure(role, config.process_id, config.log_level)
    _check_open_files()
    use_one_arena()
    _tune_garbage_collector()
    sys.exit(uvloop.run(run(role, config, open_service)))


async def run(role: str, config: C, open_service: OpenService[C]) -> int:
    """The process's life on an event loop; returns the exit code."""
    life = _Lifecycle(config.drain_timeout_s)
    with life.signals():
        try:
            async with life.deadline:
                await _run_service(role, config, open_service, life)
        except asyncio.CancelledError:
            if not life.stopping.is_set():
                raise
        except ConfigError as error:  # a setting that only the opening finds wrong: a file, an inherited socket
            sys.stderr.write("".join(f"{problem}\n" for problem in error.problems))
            return 2
        except Exception:
            log.exception("stop_cut_short" if life.deadline.expired() else "died", role=role)
            return 1
    log.info("stopped", role=role)
    return 0


class _Lifecycle:
    """The state of the process between start and stop; the admin endpoint answers from it."""

    def __init__(self, drain_timeout_s: float) -> None:
        self.stopping = asyncio.Event()
        self.deadline = asyncio.timeout(None)
        """The deadline of the process's stop; none before it is told to stop."""

        self.service: Service | None = None
        self._drain_timeout_s = drain_timeout_s
        self._main = asyncio.current_task()

    def ready(self) -> bool:
        return self.service is not None and not self.stopping.is_set() and self.service.ready()

    @contextlib.contextmanager
    def signals(self) -> Iterator[None]:
        loop = asyncio.get_running_loop()
        numbers = (signal.SIGTERM, signal.SIGINT)
        for number in numbers:
            loop.add_signal_handler(number, self._signalled, number)
        try:
            yield
        finally:
            for number in numbers:
                loop.remove_signal_handler(number)

    def _signalled(self, number: int) -> None:
        if self.stopping.is_set():
            os._exit(128 + number)
        log.info("stopping", signal=signal.Signals(number).name)
        self.stopping.set()
        self.deadline.reschedule(asyncio.get_running_loop().time() + closed_after_s(self._drain_timeout_s))
        faulthandler.dump_traceback_later(ended_after_s(self._drain_timeout_s), exit=True)  # should all else fail
        if self.service is None and self._main is not None:
            self._main.cancel()  # still opening: there is nothing to drain


async def _run_service(role: str, config: C, open_service: OpenService[C], life: _Lifecycle) -> None:
    async with _admin_endpoint(config, life) as admin, AsyncExitStack() as stack:
        service = await _open(role, stack, lambda: open_service(config))
        life.service = service
        log.info("ready", role=role, admin=admin, address=getattr(service, "address", None))
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(_never_ending(loop)) for loop in (*service.loops, trim_when_idle)]
            await life.stopping.wait()
            await _drain(service, config.drain_timeout_s)
            for task in tasks:
                task.cancel()


def _check_open_files() -> None:
    limit = open_files.raise_limit()
    problem = open_files.problem_of(limit)
    if problem is not None:
        log.warning("few_open_files", problem=problem)
    if open_files.too_few(limit):
        sys.exit(2)


def _tune_garbage_collector() -> None:
    """Takes all objects that there are now, modules mostly, to stay for good: the garbage collector need not walk over
    it again and again, nor look for cycles after every few hundred of the containers that a request's JSON is made of.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(GC_CONTAINERS, 20, 20)


async def _open(
    role: str, stack: AsyncExitStack, opener: Callable[[], AbstractAsyncContextManager[Service]]
) -> Service:
    delay_s = OPEN_BACKOFF_FIRST_S
    loop = asyncio.get_running_loop()
    expected_until_s = loop.time() + OPEN_EXPECTED_S
    while True:
        try:
            return await stack.enter_async_context(opener())
        except (Unavailable, OSError) as error:
            full = disk.is_full(error)
            if not full and not isinstance(error, (Unavailable, ConnectionError, TimeoutError)):
                raise
            write = log.info if loop.time() < expected_until_s and not full else log.warning
            write("waiting", role=role, error=str(error), retry_in_s=round(delay_s, 1))
        await asyncio.sleep(delay_s * random.uniform(0.5, 1.0))  # noqa: S311 (spreads pauses)
        delay_s = min(delay_s * 1.5, OPEN_BACKOFF_MAX_S)


async def _never_ending(loop: Callable[[], Coroutine[Any, Any, None]]) -> None:
    try:
        await loop()
    except asyncio.CancelledError as error:
        if cancellations():
            raise
        # A task group takes no notice of it: the process would live on without the loop.
        raise RuntimeError(f"the loop {getattr(loop, '__qualname__', loop)} was cancelled from within") from error
    raise RuntimeError(f"the loop {getattr(loop, '__qualname__', loop)} returned")


async def _drain(service: Service, timeout_s: float) -> None:
    try:
        async with asyncio.timeout(timeout_s):
            await service.drain()
    except TimeoutError:
        log.warning("drain_cut_short", timeout_s=timeout_s)
    except Unavailable as error:  # what the last words were meant for is gone itself
        log.warning("drain_cut_short", error=str(error))


@contextlib.asynccontextmanager
async def _admin_endpoint(config: ProcessConfig, life: _Lifecycle) -> AsyncIterator[str]:
    async def livez(_request: web.Request) -> web.Response:
        return web.Response(text="ok\n")

    async def readyz(_request: web.Request) -> web.Response:
        return web.Response(text="ok\n") if life.ready() else web.Response(status=503, text="not ready\n")

    admits = AdminAccess(config)

    async def metrics(request: web.Request) -> web.Response:
        if (why := admits.refusal(request.headers.get("Authorization"))) is not None:
            return web.Response(status=401, text=f"{why}\n", headers={"WWW-Authenticate": "Bearer"})
        return web.Response(body=generate_latest(), headers={"Content-Type": CONTENT_TYPE_LATEST})

    app = web.Application()
    app.add_routes([web.get("/livez", livez), web.get("/readyz", readyz), web.get("/metrics", metrics)])
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=ADMIN_CLOSE_S)
    await runner.setup()
    try:
        site = web.TCPSite(runner, config.admin_host, config.admin_port)
        await site.start()
        bound = runner.addresses[0]
        yield f"{bound[0]}:{bound[1]}"
    finally:
        await runner.cleanup()
