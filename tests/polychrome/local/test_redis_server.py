"""The Redis-protocol server that a local cluster starts."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import redis

from polychrome.local.process import Process, ProcessSpec
from polychrome.local.redis_server import RedisServer, ServerGate, answers, redis_server
from tests.cluster.waiting import wait_until


@contextmanager
def running(server: RedisServer, log: Path, spec: ProcessSpec | None = None) -> Iterator[Process]:
    process = Process(spec or server.prepare(), log)
    process.start()
    try:
        deadline = time.monotonic() + 20
        while not answers(server.url):
            assert process.running(), process.log_tail()
            assert time.monotonic() < deadline, process.log_tail()
            time.sleep(0.02)
        yield process
    finally:
        process.kill()


def test_what_was_acknowledged_survives_kill_9(tmp_path: Path) -> None:
    server = redis_server(tmp_path / "redis")
    with running(server, tmp_path / "log"), redis.Redis.from_url(server.url) as client:
        client.set("k", "v")
    with running(server, tmp_path / "log"), redis.Redis.from_url(server.url) as client:
        assert client.get("k") == b"v"


def test_it_is_durable_forgets_nothing_and_lets_nobody_in_without_the_password(tmp_path: Path) -> None:
    server = redis_server(tmp_path / "redis")
    with running(server, tmp_path / "log"), redis.Redis.from_url(server.url) as client:
        wanted = {"appendonly": "yes", "appendfsync": "always", "maxmemory-policy": "noeviction", "save": ""}
        assert {name: client.config_get(name)[name] for name in wanted} == wanted
        assert not answers(f"redis://127.0.0.1:{server.port}/0")
    assert (tmp_path / "redis" / "redis.conf").stat().st_mode & 0o777 == 0o600
    assert server.password not in repr(server)


def test_in_memory_keeps_nothing(tmp_path: Path) -> None:
    server = redis_server(tmp_path / "redis", durable=False)
    with running(server, tmp_path / "log"), redis.Redis.from_url(server.url) as client:
        client.set("k", "v")
    with running(server, tmp_path / "log"), redis.Redis.from_url(server.url) as client:
        assert client.get("k") is None


def test_a_server_that_refuses_records_does_so_after_a_restart_too(tmp_path: Path) -> None:
    server = redis_server(tmp_path / "redis")
    gate, spec = ServerGate(server), server.prepare()
    assert not gate.set(refuse=True)  # it is away, and told by its configuration
    for refuse in (True, False):
        with running(server, tmp_path / "log", spec), redis.Redis.from_url(server.url) as client:
            if refuse:
                with pytest.raises(redis.exceptions.OutOfMemoryError):
                    client.set("k", "v")
                assert gate.set(refuse=False)
            client.set("k", "v")


def test_an_append_only_file_of_which_most_is_of_no_use_is_written_anew(tmp_path: Path) -> None:
    server = redis_server(tmp_path / "redis")
    with running(server, tmp_path / "log"), redis.Redis.from_url(server.url) as client:

        def size() -> int:
            return int(client.info("persistence")["aof_current_size"])

        client.set("k", bytes(8 * 1024 * 1024))
        ServerGate(server).reclaim()
        assert size() > 8 * 1024 * 1024, "all of it is of use"
        client.delete("k")

        def reclaimed() -> bool:
            ServerGate(server).reclaim()  # again and again, as the supervisor does: buffers count as memory for a while
            return size() < 1024 * 1024

        wait_until(reclaimed, "a smaller file")
