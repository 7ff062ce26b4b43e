"""A server that died of its append-only file is told from one that was killed."""

from pathlib import Path

import pytest
import redis

from polychrome.local.redis_server import redis_server
from polychrome.local.redis_watch import RedisWatch, refused_its_file
from polychrome.local.space import SpaceWatch
from tests.polychrome.local.test_redis_server import running

STARTED = "1:M 30 Nov 2026 19:45:22.922 * DB loaded from append only file: 0.004 seconds\n"
READY = "1:M 30 Nov 2026 19:45:22.922 * Ready to accept connections tcp\n"
REFUSED = "1:M 30 Nov 2026 19:45:22.922 # Bad file format reading the append only file x.incr.aof: make a backup\n"


@pytest.mark.parametrize(
    ("exit_code", "log", "refused"),
    [
        (-9, STARTED, False),
        (-9, REFUSED, False),
        (0, STARTED + READY, False),
        (1, STARTED + READY + "1:M # Short write while writing to the AOF file", False),
        (1, STARTED, False),
        (1, "1:M # Failed listening on port 1, aborting.", False),
        (1, REFUSED, True),
        (1, "1:M # Invalid AOF manifest file format", True),
        (-6, "1:M # Internal error in RDB reading offset 0", True),
    ],
)
def test_which_ends_are_a_refusal(exit_code: int, log: str, refused: bool) -> None:
    assert refused_its_file(exit_code, log) is refused


def test_a_server_that_was_killed_while_its_file_is_whole_is_started_again(tmp_path: Path) -> None:
    server, said = redis_server(tmp_path / "redis"), list[str]()
    watch = RedisWatch(server, SpaceWatch([], [], None, said.append), "repair", "pc", said.append)
    for _ in range(2):
        with running(server, tmp_path / "log") as process, redis.Redis.from_url(server.url) as client:
            client.set("k", "v")
            process.kill()
            watch.died(process)
            assert watch.may_start(process)
    assert said == []
