"""`polychrome up`: a whole cluster on this machine, in the foreground."""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace
from functools import partial

from polychrome import fork
from polychrome.datadir import DataDir, ProcessEntry, Register, open_data_dir, temporary_data_dir
from polychrome.listening import listen
from polychrome.plan import ClusterOptions, Stores, process_specs
from polychrome.process import Process, ProcessSpec
from polychrome.redis_server import answers, problem_of, redis_server
from polychrome.supervisor import Supervisor
from shared.process import open_files


class TooFewFilesError(Exception):
    """Processes may open too few files to work; the message has the limit."""


def up(options: ClusterOptions, say: Callable[[str], None]) -> None:
    """Runs a cluster until a signal comes, and returns when all of it is stopped. `say` gets lines for people. Raises
    TooFewFilesError, AddressError, DataDirError, NoRedisServerError, BadConfigurationError.

    REDIS_URL and POLYCHROME_BUCKET_URL in the environment name outside services, which are then used and not started.
    """
    limit = open_files.raise_limit()
    if (problem := open_files.problem_of(limit)) is not None:
        if open_files.too_few(limit):
            raise TooFewFilesError(problem)
        say(problem)
    with ExitStack() as stack:
        data_dir = stack.enter_context(
            temporary_data_dir() if options.in_memory else open_data_dir(options.data_dir, say)
        )
        listening = listen(options.host, options.port)
        stack.callback(listening.close)
        options = replace(options, port=listening.port)
        stores, specs = _specs(options, data_dir, listening.fds)
        processes = [
            Process(spec, data_dir.log(spec.name), data_dir.lock_fds, fork=True, others_fds=listening.fds)
            for spec in specs
        ]
        register = partial(_register, data_dir, options, stores, processes)
        supervisor = Supervisor(processes, partial(_ready, stores), say, register, fork.prepare, listening.close)
        supervisor.install_signal_handlers()
        if specs[0].role != "redis" and (reason := problem_of(stores.redis_url)):
            say(f"Redis does not answer at REDIS_URL; waiting for it: {reason}")
        stack.callback(data_dir.unregister)
        supervisor.run(partial(_announce, options, data_dir, say))


def _announce(options: ClusterOptions, data_dir: DataDir, say: Callable[[str], None]) -> None:
    say(f"Polychrome is ready: {options.url}")
    if options.in_memory:
        say(f"Nothing will be kept. To look at it: polychrome status --data-dir {data_dir.root}")


def _specs(options: ClusterOptions, data_dir: DataDir, listen_fds: tuple[int, ...]) -> tuple[Stores, list[ProcessSpec]]:
    specs: list[ProcessSpec] = []
    redis_url = os.environ.get("REDIS_URL")
    if not redis_url:
        server = redis_server(data_dir.redis, durable=not options.in_memory)
        redis_url = server.url
        specs.append(server.prepare())
    bucket_url = os.environ.get("POLYCHROME_BUCKET_URL") or data_dir.objects.as_uri()
    stores = Stores(redis_url, bucket_url, data_dir.scratch, data_dir.name)
    return stores, specs + process_specs(options, stores, os.environ, listen_fds)


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
