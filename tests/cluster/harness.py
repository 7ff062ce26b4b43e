"""A whole cluster for tests: real processes on free ports, killed and started at will.

    with ClusterBuilder(tmp_path, query_workers=2).start() as cluster:
        cluster.process("queryworker-1").kill()
        ...

Nothing restarts by itself here: what a test kills stays dead until it calls `start`. At the end the logs are
searched for errors that no test announced.
"""

import json
import os
import re
import signal
import subprocess
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from polychrome.local.plan import STOP_ORDER, ClusterOptions, Stores, process_specs
from polychrome.local.process import Fork, Process, ProcessSpec, free_port
from shared.process.cluster_secret import new_secret
from tests.cluster.compose_file import PROCESSES, Here, read_services, spec_of
from tests.cluster.fork_server import ServedModule
from tests.cluster.stores import (
    ObjectStorage,
    RedisNode,
    directory_storage,
    ministack_storage,
    own_redis,
    redis_by_command,
)
from tests.cluster.waiting import wait_until

START_S_MAX = 60.0
STOP_S_MAX = 30.0
LOUD = frozenset({"error", "critical"})


@dataclass
class Cluster:
    """A running cluster."""

    directory: Path
    redis: RedisNode
    objects: ObjectStorage
    processes: list[Process]
    _allowed: list[re.Pattern[str]] = field(default_factory=list)

    @property
    def urls(self) -> list[str]:
        """One per frontend."""
        return [f"http://127.0.0.1:{p.spec.environ['POLYCHROME_FRONTEND_PORT']}" for p in self.role("frontend")]

    @property
    def url(self) -> str:
        return self.urls[0]

    def role(self, role: str) -> list[Process]:
        return [process for process in self.processes if process.spec.role == role]

    def process(self, name: str) -> Process:
        return next(process for process in self.processes if process.spec.name == name)

    def restart(self, name: str) -> None:
        """Kill -9 and start again; ready on return."""
        process = self.process(name)
        process.kill()
        process.start()
        self.wait_ready(process)

    def wait_ready(self, *processes: Process) -> None:
        """All, when none is named."""
        for process in processes or self.processes:
            wait_until(lambda process=process: _ready(process), f"a ready {process.spec.name}", START_S_MAX)  # type: ignore[misc]

    def stop(self) -> None:
        """Gracefully and in order; Redis is the business of who started it."""
        for role in STOP_ORDER[:-1]:
            for process in self.role(role):
                process.send(signal.SIGTERM)
            for process in self.role(role):
                assert process.wait(STOP_S_MAX), f"{process.spec.name} does not stop: {process.log_tail()}"

    def kill(self) -> None:
        for process in self.processes:
            process.kill()

    def allow_in_logs(self, pattern: str) -> None:
        """A test that provokes an error says so."""
        self._allowed.append(re.compile(pattern))

    def unexpected_log_lines(self) -> list[str]:
        """Errors, tracebacks and output that is not a log line at all."""
        return [
            f"{process.spec.name}: {line}"
            for process in self.processes
            for line in process.log_path.read_text(errors="replace").split("\n")
            if _is_loud(line) and not any(pattern.search(line) for pattern in self._allowed)
        ]


def _ready(process: Process) -> bool:
    if not process.running():
        raise RuntimeError(f"{process.spec.name} ended with {process.exit_code()}: {process.log_tail()}")
    return process.ready()


def _is_loud(line: str) -> bool:
    try:
        entry = json.loads(line)
    except ValueError:
        return bool(line.strip())
    return entry.get("level") in LOUD or "exception" in entry


@dataclass
class ClusterBuilder:
    """What to start. `environ` is added to every process's environment."""

    directory: Path
    frontends: int = 1
    log_services: int = 1
    compactors: int = 1
    query_workers: int = 1
    embedders: int = 0
    shards_default: int = 1
    s3: bool = False
    storage: Callable[[Path], AbstractContextManager[ObjectStorage]] | None = None
    """What the bucket lies in, given a directory; None: a directory, or with `s3` a server of its own."""
    redis_program: Path | None = None
    """The server program; None: the one that `polychrome up` takes."""
    cors_allow_origins: str = "http://example.com"
    environ: Mapping[str, str] = field(default_factory=dict)

    @contextmanager
    def start(self) -> Iterator[Cluster]:
        """The processes that `polychrome up` would start, each frontend on a port of its own; as there, they are forks
        of a process that has imported what they have in common.
        """
        with ExitStack() as stack:
            redis = stack.enter_context(own_redis(self.directory, self.redis_program))
            storage = self.storage or (ministack_storage if self.s3 else directory_storage)
            objects = stack.enter_context(storage(self.directory / "objects"))
            if objects.endpoint:
                _create_bucket(objects)
            secret = self.directory / "cluster-secret"
            secret.write_text(new_secret())
            stores = Stores(redis.url, objects.url, self.directory / "scratch", "test", secret, redis.urls)
            specs = process_specs(self._options(), stores)
            specs = [self._own(spec, objects) for spec in specs]
            yield stack.enter_context(self._run(redis, objects, specs, fork=ServedModule))

    @contextmanager
    def start_from_compose(self, objects: ObjectStorage) -> Iterator[Cluster]:
        """The processes, commands and environment of compose.yaml, as many of each as asked for; as in containers,
        each is an interpreter of its own.
        """
        services = read_services()
        with ExitStack() as stack:
            assert objects.endpoint is not None
            scratch = self.directory / "scratch"
            scratch.mkdir(parents=True)
            here = Here("", objects.endpoint.address)
            for first in ("secrets", "bucket"):
                spec = spec_of(services[first], 1, here, scratch)
                subprocess.run(spec.argv, env=os.environ | dict(spec.environ), check=True, capture_output=True)
            command = tuple(here.value(word, scratch / "redis") for word in services["redis"].command)
            password = services["redis"].environ["REDIS_PASSWORD"]
            redis = stack.enter_context(redis_by_command(self.directory, command, password))
            here = Here(redis.url.rpartition("@")[2].removesuffix("/0"), objects.endpoint.address)
            counts = (self.log_services, self.compactors, self.query_workers, self.embedders, self.frontends)
            specs = [
                spec_of(services[role], number, here, scratch)
                for role, count in zip(PROCESSES, counts, strict=True)
                for number in range(1, count + 1)
            ]
            specs = [ProcessSpec(s.name, s.role, s.argv, {**s.environ, **self._test_environ()}) for s in specs]
            yield stack.enter_context(self._run(redis, objects, specs))

    def _options(self) -> ClusterOptions:
        return ClusterOptions(
            frontends=self.frontends,
            log_services=self.log_services,
            compactors=self.compactors,
            query_workers=self.query_workers,
            embedders=self.embedders,
        )

    def _test_environ(self) -> dict[str, str]:
        return {
            "POLYCHROME_FRONTEND_ALLOW_RESET": "true",
            "POLYCHROME_FRONTEND_CORS_ALLOW_ORIGINS": self.cors_allow_origins,
            "POLYCHROME_FRONTEND_SHARDS_DEFAULT": str(self.shards_default),
            **self.environ,
        }

    def _own(self, spec: ProcessSpec, objects: ObjectStorage) -> ProcessSpec:
        environ = {**spec.environ, **objects.environ, **self._test_environ()}
        if spec.role == "frontend":
            environ["POLYCHROME_FRONTEND_PORT"] = str(free_port())
        return ProcessSpec(spec.name, spec.role, spec.argv, environ)

    @contextmanager
    def _run(
        self, redis: RedisNode, objects: ObjectStorage, specs: list[ProcessSpec], fork: Fork | None = None
    ) -> Iterator[Cluster]:
        logs = self.directory / "logs"
        logs.mkdir(parents=True)
        processes = [Process(spec, logs / f"{spec.name}.log", fork=fork) for spec in specs]
        cluster = Cluster(self.directory, redis, objects, processes)
        try:
            for process in cluster.processes:
                process.start()
            cluster.wait_ready()
            yield cluster
            cluster.stop()
            denials = redis.denials()
        finally:
            cluster.kill()
        assert not denials, "Redis refused what a role needs (polychrome/redis_users.py):\n" + "\n".join(denials)
        unexpected = cluster.unexpected_log_lines()
        assert not unexpected, "the logs hold errors that no test announced:\n" + "\n".join(unexpected[:20])


def _create_bucket(objects: ObjectStorage) -> None:
    command = [Here("", "").program("polychrome"), "create-bucket", objects.url]
    subprocess.run(command, env=os.environ | dict(objects.environ), check=True, capture_output=True)
