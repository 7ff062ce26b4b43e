"""What a test cluster keeps its state in: real servers on free ports, each stopped by its own handle."""

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

import httpx
import redis

from polychrome.local.process import Process, ProcessSpec, free_port
from polychrome.local.redis_server import answers, find_program, redis_server
from tests.cluster.waiting import wait_until
from tests.shared.objects.ministack import running_ministack


class RedisNode:
    """A Redis server that keeps its port and data through `kill` and `start`."""

    def __init__(self, spec: ProcessSpec, url: str, log_path: Path, urls: Mapping[str, str] | None = None) -> None:
        self.url = url
        self.urls = urls or {}
        self.process = Process(spec, log_path)

    def start(self) -> None:
        self.process.start()
        wait_until(self._up, "an answering Redis server")

    def kill(self) -> None:
        self.process.kill()

    def denials(self) -> list[str]:
        """What its users were refused since it started, or since this was asked."""
        with redis.Redis.from_url(self.url) as client:
            found = [f"{each['username']}: {each['reason']} {each['object']}" for each in client.acl_log()]
            client.acl_log_reset()
        return found

    def _up(self) -> bool:
        if not self.process.running():
            raise RuntimeError(f"the Redis server ended: {self.process.log_tail()}")
        return answers(self.url)


@contextmanager
def own_redis(directory: Path, program: Path | None = None) -> Iterator[RedisNode]:
    """The server that `polychrome up` starts, or this program as it would start that."""
    server = redis_server(directory / "redis")
    if program is not None:
        server = replace(server, program=program)
    with _running(RedisNode(server.prepare(), server.url, directory / "redis.log", server.urls)) as node:
        yield node


@contextmanager
def redis_by_command(directory: Path, command: tuple[str, ...], password: str) -> Iterator[RedisNode]:
    """A server by its own command line (`valkey-server --appendonly yes ...`), on a free port. `password` is that of
    its user `default`.
    """
    port = free_port()
    data = directory / "redis"
    data.mkdir(parents=True)
    here = ("--bind", "127.0.0.1", "--port", str(port), "--dir", str(data))
    spec = ProcessSpec("redis", "redis", (str(find_program()), *command[1:], *here))
    with _running(RedisNode(spec, f"redis://:{password}@127.0.0.1:{port}/0", directory / "redis.log")) as node:
        yield node


@contextmanager
def _running(node: RedisNode) -> Iterator[RedisNode]:
    node.start()
    try:
        yield node
    finally:
        node.kill()


@dataclass(frozen=True)
class S3Endpoint:
    """An S3-compatible server over HTTP."""

    url: str
    access_key: str = "polychrome"
    secret_key: str = "polychrome-secret"
    ca_bundle: Path | None = None
    """The authority of an https server."""

    @property
    def address(self) -> str:
        return self.url.removeprefix("http://")

    def answers(self) -> bool:
        return httpx.get(self.url, timeout=2).status_code < 500

    @property
    def environ(self) -> Mapping[str, str]:
        return {
            "AWS_ENDPOINT_URL_S3": self.url,
            "AWS_REGION": "us-east-1",
            "AWS_ACCESS_KEY_ID": self.access_key,
            "AWS_SECRET_ACCESS_KEY": self.secret_key,
            **({"AWS_CA_BUNDLE": str(self.ca_bundle)} if self.ca_bundle else {}),
        }


@dataclass
class ObjectStorage:
    """A bucket, and the variables with which a process reaches it. A server of ours can be stopped and started."""

    url: str
    endpoint: S3Endpoint | None = None
    directory: Path | None = None
    _server: ExitStack = field(default_factory=ExitStack)

    @property
    def environ(self) -> Mapping[str, str]:
        return self.endpoint.environ if self.endpoint else {}

    @property
    def can_be_stopped(self) -> bool:
        return self.directory is not None

    def stop(self) -> None:
        self._server.close()

    def start(self) -> None:
        assert self.endpoint is not None
        assert self.directory is not None
        port = int(self.endpoint.address.rpartition(":")[2])
        self._server.enter_context(running_ministack(self.directory, port))


@contextmanager
def directory_storage(directory: Path) -> Iterator[ObjectStorage]:
    directory.mkdir(parents=True, exist_ok=True)
    yield ObjectStorage(directory.resolve().as_uri())


@contextmanager
def ministack_storage(directory: Path) -> Iterator[ObjectStorage]:
    """A server whose objects survive its being killed. The bucket is not there yet."""
    endpoint = S3Endpoint(f"http://127.0.0.1:{free_port()}")
    storage = ObjectStorage("s3://polychrome", endpoint, directory / "ministack")
    storage.start()
    try:
        yield storage
    finally:
        storage.stop()
