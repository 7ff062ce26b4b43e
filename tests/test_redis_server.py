"""The servers of the tests keep what they acknowledged, so that what is lost after a kill is our fault."""

import redis as blocking

from tests.append_only_file import newest
from tests.redis_server import RedisServer, own_server

__all__ = ["own_server"]

TWO_KEYS = "redis.call('RPUSH', KEYS[1], ARGV[1]) redis.call('RPUSH', KEYS[2], ARGV[1])"


def write(server: RedisServer, value: str) -> None:
    with blocking.Redis(port=server.port) as client:
        client.eval(TWO_KEYS, 2, "first", "second", value)


def test_what_is_acknowledged_behind_a_transaction_that_a_kill_tore_survives_the_next_kill(
    own_server: RedisServer,
) -> None:
    write(own_server, "one")
    kept = newest(own_server.directory).stat().st_size
    write(own_server, "torn")
    own_server.kill()
    path = newest(own_server.directory)
    written = path.read_bytes()
    path.write_bytes(written[: written.index(b"second", kept)])  # MULTI, RPUSH first, and half of a command
    own_server.start()
    write(own_server, "two")
    own_server.restart()
    with blocking.Redis(port=own_server.port) as client:
        assert [client.lrange(name, 0, -1) for name in ("first", "second")] == [[b"one", b"two"]] * 2
