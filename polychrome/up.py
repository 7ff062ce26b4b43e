"""`polychrome up`: a whole cluster on this machine, in the foreground."""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace
from functools import partial

from polychrome import fork
from polychrome.datadir import DataDir, ProcessEntry, Register, open_data_dir, temporary_data_dir
from polychrome.plan import ClusterOptions, Stores, process_specs
from polychrome.process import Process, ProcessSpec
from polychrome.redis_server import answers, problem_of, redis_server
from polychrome.supervisor import Supervisor


class AddressError(Exception):
    """The API cannot listen on the address that was given; the message says why."""


def up(options: ClusterOptions, say: Callable[[str], None]) -> None:
    """Runs a cluster until a signal comes, and returns when all of it is stopped. `say` gets lines for people. Raises
    AddressError, DataDirError, NoRedisServerError, BadConfigurationError.

    REDIS_URL and POLYCHROME_BUCKET_URL in the environment name outside services, which are then used and not started.
    """
    options = replace(options, port=_check_address(options))
    with ExitStack() as stack:
        data_dir = stack.enter_context(temporary_data_dir() if options.in_memory else open_data_dir(options.data_dir))
        stores, specs = _specs(options, data_dir)
        processes = [Process(spec, data_dir.log(spec.name), (data_dir.lock_fd,), fork=True) for spec in specs]
        register = partial(_register, data_dir, options, stores, processes)
        supervisor = Supervisor(processes, partial(_ready, stores), say, register, fork.prepare)
        supervisor.install_signal_handlers()
        if specs[0].role != "redis" and (reason := problem_of(stores.redis_url)):
            say(f"Redis does not answer at REDIS_URL; waiting for it: {reason}")
        stack.callback(data_dir.unregister)
        supervisor.run(partial(_announce, options, data_dir, say))


def _announce(options: ClusterOptions, data_dir: DataDir, say: Callable[[str], None]) -> None:
    say(f"Polychrome is ready: {options.url}")
    if options.in_memory:
        say(f"Nothing will be kept. To look at it: polychrome status --data-dir {data_dir.root}")


def _check_address(options: ClusterOptions) -> int:
    """The port to listen on: the wanted one, or a free one for 0. Raises AddressError when it is taken, of which every
    frontend would die again and again otherwise.
    """
    try:
        family, kind, _, _, address = socket.getaddrinfo(options.host, options.port, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, kind) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
            port: int = probe.getsockname()[1]
    except OSError as error:
        hint = "; --port takes another" if error.errno == errno.EADDRINUSE else ""
        raise AddressError(f"{options.host} port {options.port}: {error.strerror}{hint}") from error
    return port


def _specs(options: ClusterOptions, data_dir: DataDir) -> tuple[Stores, list[ProcessSpec]]:
    specs: list[ProcessSpec] = []
    redis_url = os.environ.get("REDIS_URL")
    if not redis_url:
        server = redis_server(data_dir.redis, durable=not options.in_memory)
        redis_url = server.url
        specs.append(server.prepare())
    bucket_url = os.environ.get("POLYCHROME_BUCKET_URL") or data_dir.objects.as_uri()
    stores = Stores(redis_url, bucket_url, data_dir.scratch, data_dir.name)
    return stores, specs + process_specs(options, stores, os.environ)


def _ready(stores: Stores, process: Process) -> bool:
    return answers(stores.redis_url) if process.spec.role == "redis" else process.ready()


def _register(data_dir: DataDir, options: ClusterOptions, stores: Stores, processes: list[Process]) -> None:
    entries = [
        ProcessEntry(process.spec.name, process.spec.role, process.pid, process.admin_address, process.spec.id)
        for process in processes
        if process.pid is not None
    ]
    prefix = os.environ.get("POLYCHROME_REDIS_PREFIX", "pc")
    data_dir.register(Register(options.url, stores.redis_url, prefix, entries))
