"""`polychrome up`: a whole cluster on this machine, in the foreground."""

from __future__ import annotations

import os
import shlex
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from typing import Final

from polychrome.local import fork
from polychrome.local.datadir import (
    DataDir,
    DataDirFullError,
    ProcessEntry,
    Register,
    bootstrap_key_file,
    open_data_dir,
    temporary_data_dir,
)
from polychrome.local.listening import listen
from polychrome.local.plan import AUTH, BOOTSTRAP_KEY_FILE, TLS_CERTIFICATE_FILE, ClusterOptions, Stores, process_specs
from polychrome.local.process import Process
from polychrome.local.redis_server import RedisServer, ServerGate, answers, problem_of, redis_server
from polychrome.local.redis_watch import RedisWatch
from polychrome.local.space import Reserve, SpaceWatch, Watched, disks_of
from polychrome.local.supervisor import BadConfigurationError, Supervisor
from polychrome.redis_users import DEFAULT_PREFIX, problem_of_prefix
from shared.process import open_files
from shared.process.disk import is_full

_WAIT_S: Final = 0.5
"""Pause between two looks at a disk that is too full to start on, in seconds."""


class TooFewFilesError(Exception):
    """Processes may open too few files to work; the message has the limit."""


def up(options: ClusterOptions, say: Callable[[str], None]) -> None:
    """Runs a cluster until a signal comes, and returns when all of it is stopped. `say` gets lines for people. Raises
    TooFewFilesError, AddressError, DataDirError, NoRedisServerError, BadConfigurationError.

    REDIS_URL and POLYCHROME_BUCKET_URL in the environment name outside services, which are then used and not started.
    """
    _check_open_files(say)
    with ExitStack() as stack:
        data_dir = _open_data_dir(options, say, stack)
        listening = listen(options.host, options.port)
        stack.callback(listening.close)
        options = replace(options, port=listening.port, tls=bool(os.environ.get(TLS_CERTIFICATE_FILE)))
        redis_url = os.environ.get("REDIS_URL")
        prefix = os.environ.get("POLYCHROME_REDIS_PREFIX", DEFAULT_PREFIX)
        server = None if redis_url else _own_server(options, data_dir, prefix)
        space = _space_watch(options, data_dir, server, say)
        _wait_for_space(space)
        bucket_url = os.environ.get("POLYCHROME_BUCKET_URL") or data_dir.objects.as_uri()
        stores = Stores(
            redis_url or _url(server),
            bucket_url,
            data_dir.scratch,
            data_dir.name,
            data_dir.cluster_secret,
            server.urls if server is not None else {},
        )
        if (options.auth or os.environ.get(AUTH)) == "keys":
            os.environ.setdefault(BOOTSTRAP_KEY_FILE, str(bootstrap_key_file(data_dir.root)))
        specs = process_specs(options, stores, os.environ, listening.fds)
        if server is not None:
            specs.insert(0, server.prepare(refuse_writes=space.refusing))
        processes = [
            Process(spec, data_dir.log(spec.name), data_dir.lock_fds, fork=fork.ForkedModule, others_fds=listening.fds)
            for spec in specs
        ]
        repair = f"polychrome repair-redis --data-dir {shlex.quote(str(data_dir.root))}"
        watch = RedisWatch(server, space, repair, prefix, say)
        registrar = Registrar(data_dir, partial(_register, options, stores, processes, space, watch))

        def check() -> None:
            space.check()
            registrar.retry()

        supervisor = Supervisor(
            processes,
            partial(_ready, stores),
            say,
            registrar.write,
            fork.prepare,
            listening.close,
            check=check,
            may_start=watch.may_start,
            died=watch.died,
        )
        supervisor.install_signal_handlers()
        if server is None and (reason := problem_of(stores.redis_url)):
            say(f"Redis does not answer at REDIS_URL; waiting for it: {reason}")
        stack.callback(data_dir.unregister)
        supervisor.run(partial(_announce, options, data_dir, say))


class Registrar:
    """Writes cluster.json, by what `register` returns. While the disk is full it stays as it is, and is tried again."""

    def __init__(self, data_dir: DataDir, register: Callable[[], Register]) -> None:
        self._data_dir = data_dir
        self._register = register
        self._missed = False

    def write(self) -> None:
        """Writes it now, or, when the disk is full, at the next `retry` that finds room."""
        try:
            self._data_dir.register(self._register())
        except OSError as error:
            if not is_full(error):
                raise
        else:
            self._missed = False
            return
        self._missed = True

    def retry(self) -> None:
        """Writes it if that is still to be done."""
        if self._missed:
            self.write()


def _check_open_files(say: Callable[[str], None]) -> None:
    limit = open_files.raise_limit()
    if (problem := open_files.problem_of(limit)) is not None:
        if open_files.too_few(limit):
            raise TooFewFilesError(problem)
        say(problem)


def _open_data_dir(options: ClusterOptions, say: Callable[[str], None], stack: ExitStack) -> DataDir:
    """The data directory, once there is room to make it."""
    if options.in_memory:
        return stack.enter_context(temporary_data_dir())
    said = False
    while True:
        try:
            return stack.enter_context(open_data_dir(options.data_dir, say))
        except DataDirFullError as error:
            if not said:
                say(f"{error}; waiting for room")
            said = True
        time.sleep(_WAIT_S)


def _space_watch(
    options: ClusterOptions, data_dir: DataDir, server: RedisServer | None, say: Callable[[str], None]
) -> SpaceWatch:
    """The watch over the disks that this cluster writes to itself."""
    if options.in_memory:
        return SpaceWatch([], [], None, say)
    needed = [data_dir.redis] if server is not None else []
    if not os.environ.get("POLYCHROME_BUCKET_URL"):
        needed.append(data_dir.objects)
    reserved = disks_of(needed)
    losses = {
        data_dir.root: "cluster.json is out of date",
        data_dir.scratch: "what was not cached is not read, and nothing is compacted",
        data_dir.logs: "log lines are lost",
    }
    watched = [folder for folder in disks_of([*reserved, *losses]) if folder not in reserved]
    size = options.reserve_mib * 1024 * 1024
    return SpaceWatch(
        [Reserve(folder, size) for folder in reserved] if size else [],
        [Watched(folder, losses[folder]) for folder in watched],
        ServerGate(server) if server is not None else None,
        say,
    )


def _wait_for_space(space: SpaceWatch) -> None:
    """Returns when there is room to start; until then Ctrl-C ends this process."""
    space.check()
    while not space.may_start():
        time.sleep(_WAIT_S)
        space.check()


def _own_server(options: ClusterOptions, data_dir: DataDir, prefix: str) -> RedisServer:
    if (problem := problem_of_prefix(prefix)) is not None:
        raise BadConfigurationError(problem)
    return redis_server(data_dir.redis, durable=not options.in_memory, prefix=prefix)


def _url(server: RedisServer | None) -> str:
    assert server is not None
    return server.url


def _announce(options: ClusterOptions, data_dir: DataDir, say: Callable[[str], None]) -> None:
    say(f"Polychrome is ready: {options.url}")
    if (options.auth or os.environ.get(AUTH)) == "keys":
        say(f"Requests need a key. That of the operator is in {os.environ[BOOTSTRAP_KEY_FILE]}")
    else:
        say("There is no authentication: whoever reaches it may do everything (--auth keys)")
    if options.in_memory:
        say(f"Nothing will be kept. To look at it: polychrome status --data-dir {data_dir.root}")


def _ready(stores: Stores, process: Process) -> bool:
    return answers(stores.redis_url) if process.spec.role == "redis" else process.ready()


def _register(
    options: ClusterOptions, stores: Stores, processes: list[Process], space: SpaceWatch, watch: RedisWatch
) -> Register:
    entries = [
        ProcessEntry(process.spec.name, process.spec.role, process.pid, process.admin_address, process.spec.id)
        for process in processes
        if process.pid is not None
    ]
    prefix = os.environ.get("POLYCHROME_REDIS_PREFIX", DEFAULT_PREFIX)
    return Register(
        options.url,
        stores.redis_url,
        prefix,
        entries,
        reserves=[str(folder) for folder in space.reserved_folders],
        watched=[str(folder) for folder in space.watched_folders],
        problems=watch.problems,
    )
