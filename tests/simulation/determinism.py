"""The one place where the world outside is kept out of a run: clocks, random numbers, threads and the bucket's URL."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import random
import secrets
import shutil
import tempfile
import time
import uuid
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any, Final
from unittest.mock import patch

import redis.utils
import structlog

import compactor.service
import frontend.service
import logservice.service
import queryworker.service
import shared.redis.deadline
from queryworker.thread_pool import Callback, Result, ThreadPool
from shared.objects.port import ObjectStore
from shared.objects.retrying import RetryingStore
from shared.process.clock import SystemClock
from shared.redis.deadline import _LoopDeadlines
from tests.simulation.loop import CURRENT, THREAD_S_MAX, Process, SimulatedLoop
from tests.simulation.members import NoHttpServer

STARTED_S: Final = 1_800_000_000.0
"""Wall time at which every run begins, in seconds since the epoch."""


class InlineThreads(ThreadPool):
    """A pool whose work is done on the loop, each job whole, after a delay that is drawn."""

    def __init__(self, count: int, name: str, nice: int = 0, *, spare: bool = False) -> None:
        self._loop = asyncio.get_running_loop()
        self._pending = 0
        self._closed = False

    def submit(
        self,
        callback: Callback[Result],
        work: Callable[[], Result],
        tenant: str = "",
        cost_s: float = 0.0,
    ) -> None:
        if self._closed:
            raise RuntimeError("the threads are closed")
        self._pending += 1

        def done() -> None:
            result, error = None, None
            try:
                result = work()
            except BaseException as found:
                error = found
            self._pending -= 1
            callback(result, error)

        assert isinstance(self._loop, SimulatedLoop)
        self._loop.call_later(self._loop.chance.random() * THREAD_S_MAX, done)

    async def close(self) -> None:
        self._closed = True


class _OrderedSet(dict[Any, None]):
    """A set that is walked through in the order of insertion."""

    def add(self, item: Any) -> None:
        self[item] = None

    def discard(self, item: Any) -> None:
        self.pop(item, None)


def _deadlines_of(loop: asyncio.AbstractEventLoop) -> _LoopDeadlines:
    """The deadlines of the running process: those of the loop would be looked through by whichever process was first,
    which may be paused or dead.
    """
    process: Any = CURRENT.get()
    if not hasattr(process, "deadlines"):
        process.deadlines = _LoopDeadlines()
        process.deadlines.running = _OrderedSet()
    found: _LoopDeadlines = process.deadlines
    return found


@contextlib.contextmanager
def kept_apart(
    loop: SimulatedLoop, seed: int, open_bucket: Callable[[Process], ObjectStore], trace: Callable[[str], None]
) -> Iterator[Path]:
    """While the context lasts, this whole Python process lives in the run. Yields a folder for its files."""
    chance = random.Random(f"names {seed}")

    @contextlib.asynccontextmanager
    async def open_store(_url: str) -> AsyncIterator[ObjectStore]:
        yield RetryingStore(open_bucket(CURRENT.get()), SystemClock(), randomness=random.Random(chance.random()))

    def say(_logger: Any, method: str, event: Any) -> Any:
        text = " ".join(f"{key}={value}" for key, value in event.items() if key not in ("event", "module", "exc_info"))
        trace(f"{CURRENT.get(loop.host)} {method} {event['event']} {text}")
        raise structlog.DropEvent

    opener: Callable[[str], AbstractAsyncContextManager[ObjectStore]] = open_store
    before, folder = random.getstate(), Path(tempfile.mkdtemp(prefix="simulation-", dir=_fast_folder()))
    structlog.configure(processors=[say], wrapper_class=structlog.make_filtering_bound_logger(20))
    random.seed(seed)
    gc.disable()  # what the collector finalizes would run at moments that no seed decides
    try:
        with contextlib.ExitStack() as patches:
            for target, name, value in (
                (time, "time", lambda: STARTED_S + loop.time()),
                (time, "monotonic", loop.time),
                (uuid, "uuid4", lambda: uuid.UUID(int=chance.getrandbits(128), version=4)),
                (secrets, "token_hex", lambda size=16: f"{chance.getrandbits(8 * size):0{2 * size}x}"),
                (shared.redis.deadline, "_deadlines_of", _deadlines_of),
                (redis.utils, "get_lib_version", lambda: "0"),  # it reads files for every connection
                (queryworker.service, "ThreadPool", InlineThreads),
                (compactor.service, "open_store", opener),
                (logservice.service, "open_store", opener),
                (queryworker.service, "open_store", opener),
                (frontend.service, "open_store", opener),
                (frontend.service, "open_http", NoHttpServer),
                (frontend.service, "open_http_server", NoHttpServer),
                (frontend.service, "build_app", lambda _context: None),
            ):
                patches.enter_context(patch.object(target, name, value))
            yield folder
    finally:
        gc.enable()
        random.setstate(before)
        structlog.reset_defaults()
        shutil.rmtree(folder, ignore_errors=True)


def _fast_folder() -> str | None:
    memory = Path("/dev/shm")
    return str(memory) if memory.is_dir() else None
