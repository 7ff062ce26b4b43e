"""Checking and repairing the files of a real server."""

from collections.abc import Callable
from pathlib import Path

import pytest
import redis

from polychrome.append_only.file import COMMANDS
from polychrome.append_only.repair import MANIFEST, UnrepairableError, check, files_of, repair
from polychrome.local.redis_server import RedisServer, redis_server
from tests.cluster.waiting import wait_until
from tests.polychrome.local.test_redis_server import running

STATE = "pc:{1}:state"


@pytest.fixture
def server(tmp_path: Path) -> RedisServer:
    """A server that was stopped, with the fields "base" in its base file and "0", "1" and so on in its last one."""
    made = redis_server(tmp_path / "redis")
    with running(made, tmp_path / "log"), redis.Redis.from_url(made.url) as client:
        client.hset(STATE, "base", "in the base file")
        client.bgrewriteaof()
        wait_until(lambda: not client.info("persistence")["aof_rewrite_in_progress"], "a base file")
        for number in range(10):
            client.hset(STATE, str(number), "in the last file")
    return made


def _change(path: Path, change: Callable[[bytes], bytes]) -> None:
    path.write_bytes(change(path.read_bytes()))


def _loaded(server: RedisServer, tmp_path: Path) -> dict[bytes, bytes]:
    with running(server, tmp_path / "log"), redis.Redis.from_url(server.url) as client:
        found: dict[bytes, bytes] = client.hgetall(STATE)
        return found


def test_what_a_server_has_written_is_whole(server: RedisServer) -> None:
    assert check(server.log_directory, server.program, "pc") == []


def test_a_repair_loses_the_damaged_command_and_what_it_loses_is_named(server: RedisServer, tmp_path: Path) -> None:
    base, last = files_of(server.log_directory)
    _change(last, lambda content: content.replace(b"$1\r\n5\r\n", b"$1\r\n55\r\n"))
    found = check(server.log_directory, server.program, "pc")
    assert [(each.path, each.keys, each.entries) for each in found] == [(last, [STATE], [])]
    kept = repair(found, server.log_directory)
    assert kept is not None
    assert [path.name for path in kept.iterdir()] == [last.name]
    assert set(_loaded(server, tmp_path)) == {b"base", *(b"%d" % number for number in range(10) if number != 5)}
    assert base.exists()


def test_a_base_file_with_another_byte_is_named_and_loaded_all_the_same(server: RedisServer, tmp_path: Path) -> None:
    base = files_of(server.log_directory)[0]
    _change(base, lambda content: content.replace(b"in the base", b"in thE base"))
    found = check(server.log_directory, server.program, "pc")
    assert [each.path for each in found] == [base]
    assert "some byte of it is another one" in "".join(found[0].lines())
    repair(found, server.log_directory)
    loaded = _loaded(server, tmp_path)
    assert (loaded[b"base"], len(loaded)) == (b"in thE base file", 11)


@pytest.mark.parametrize("broken", ["base", "manifest", "missing"])
def test_what_no_repair_can_read_is_said(server: RedisServer, broken: str) -> None:
    base, last = files_of(server.log_directory)
    match broken:
        case "base":
            _change(base, lambda content: content[:9] + bytes(20) + content[29:])
        case "manifest":
            _change(server.log_directory / MANIFEST, lambda content: b"?" + content)
        case "missing":
            last.unlink()
    with pytest.raises(UnrepairableError):
        check(server.log_directory, server.program, "pc")


def test_a_torn_end_of_an_earlier_file_is_damage(server: RedisServer) -> None:
    _, last = files_of(server.log_directory)
    later = last.with_name("appendonly.aof.99.incr.aof")
    later.write_bytes(last.read_bytes())
    _change(server.log_directory / MANIFEST, lambda content: content + f"file {later.name} seq 99 type i\n".encode())
    for path, torn in ((last, False), (later, True)):
        whole = path.read_bytes()
        path.write_bytes(whole[:-5])
        assert [(each.path, each.damage.torn) for each in check(server.log_directory, server.program, "pc")] == [
            (path, torn)
        ]
        path.write_bytes(whole)


def test_whatever_a_server_writes_is_a_command(server: RedisServer, tmp_path: Path) -> None:
    with running(server, tmp_path / "log"), redis.Redis.from_url(server.url) as client:
        listed = client.connection_pool.get_connection()
        listed.send_command("COMMAND", "LIST", "FILTERBY", "ACLCAT", "write")
        names = {name.upper().partition(b"|")[0] for name in listed.read_response()}
        listed.disconnect()
        client.flushall()
    assert names - COMMANDS == set()
    assert check(server.log_directory, server.program, "pc") == []
