"""Verifying the append-only file of a cluster that does not run: a server of our own loads a copy of it.

The file itself is only read. What is damaged in it is named, and left out of the copy, so that the rest can be proved.
"""

from __future__ import annotations

import asyncio
import shutil
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Final

from redis.asyncio import Redis

from polychrome.append_only.repair import FileDamage, UnrepairableError, check, cut_torn_end, repair
from polychrome.local.process import Process
from polychrome.local.redis_server import problem_of, redis_server
from polychrome.verify.model import Finding
from shared.errors import Unavailable
from shared.redis.client import open_redis

LOAD_S_MAX: Final = 600.0
"""Longest time that the server may take to load the copy, in seconds."""
_POLL_S: Final = 0.05


@asynccontextmanager
async def loaded_copy(
    redis_directory: Path, prefix: str, scratch: Path | None
) -> AsyncIterator[tuple[Redis, list[Finding]]]:
    """A server with the content of the append-only file in a data directory's `redis_directory`, and what is damaged in
    the file. `scratch` is a directory with room for a copy, None: the system's. Raises Unavailable when it cannot be
    loaded.
    """
    with tempfile.TemporaryDirectory(prefix="polychrome-verify-redis-", dir=scratch) as folder:
        server = redis_server(Path(folder))
        await asyncio.to_thread(shutil.copytree, redis_directory / server.log_directory.name, server.log_directory)
        try:
            damaged = await asyncio.to_thread(check, server.log_directory, server.program, prefix)
        except UnrepairableError as error:
            raise Unavailable(f"the append-only file cannot be read: {error}") from error
        await asyncio.to_thread(_leave_out, damaged, server.log_directory)
        process = Process(server.prepare(), Path(folder, "redis.log"))
        with _running(process):
            await _until_loaded(process, server.url)
            async with open_redis(server.url) as redis:
                yield redis, [_finding(each) for each in damaged if not each.damage.torn]


def _leave_out(damaged: list[FileDamage], directory: Path) -> None:
    """Leaves what is damaged out of the copy."""
    repair([each for each in damaged if not each.damage.torn], directory)
    for each in damaged:
        if each.damage.torn:
            cut_torn_end(each)


def _finding(damaged: FileDamage) -> Finding:
    what, *lost = replace(damaged, path=Path(damaged.path.name)).lines()
    name = f"redis/{damaged.path.parent.name}/{damaged.path.name}"
    return Finding.of(name, "; ".join([what, *(line.strip() for line in lost)]))


@contextmanager
def _running(process: Process) -> Iterator[None]:
    process.start()
    try:
        yield
    finally:
        process.kill()


async def _until_loaded(process: Process, url: str) -> None:
    deadline_s = time.monotonic() + LOAD_S_MAX
    while (problem := await asyncio.to_thread(problem_of, url)) is not None:
        if not process.running() or time.monotonic() > deadline_s:
            raise Unavailable(f"the server does not load the append-only file: {problem}; {process.log_tail()}")
        await asyncio.sleep(_POLL_S)
