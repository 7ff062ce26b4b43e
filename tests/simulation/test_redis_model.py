"""The model of Redis answers as the server does."""

from __future__ import annotations

import random
import re
from pathlib import Path
from typing import Any

import redis as blocking

import shared
from shared.log.log import COMMIT, READ, TRIM
from shared.redis.scripts import Script
from tests.redis_server import RedisServer, valkey_server
from tests.simulation import redis_sorted_sets, redis_streams
from tests.simulation.redis_data import COMMANDS, CommandError, Data, Status
from tests.simulation.redis_lua import SCRIPTS

__all__ = ["redis_sorted_sets", "redis_streams", "valkey_server"]

CALLS = 400
MEMBERS = [b"a", b"b", b"c", b"d"]


def drawn(chance: random.Random) -> list[bytes]:
    """A command on one of a few keys, each of one type."""
    member, other = chance.choice(MEMBERS), chance.choice(MEMBERS)
    number, entry = b"%d" % chance.randint(0, 5), b"%d-0" % chance.randint(1, 40)
    return list(
        chance.choice(
            [
                (b"HSET", b"h", member, number), (b"HMGET", b"h", member, other), (b"HDEL", b"h", member),
                (b"HGETALL", b"h"), (b"HLEN", b"h"), (b"HEXISTS", b"h", member), (b"HINCRBY", b"h2", member, number),
                (b"SADD", b"s", member, other), (b"SREM", b"s", member), (b"SCARD", b"s"), (b"SISMEMBER", b"s", member),
                (b"SMISMEMBER", b"s", other, member),
                (b"ZMSCORE", b"z", member, other), (b"SMOVE", b"s", b"s2", member),
                (b"ZADD", b"z", number, member), (b"ZADD", b"z", b"NX", number, member),
                (b"ZREM", b"z", member), (b"ZRANGE", b"z", b"0", b"-1", b"WITHSCORES"), (b"ZCARD", b"z"),
                (b"ZREVRANGE", b"z", b"0", b"0", b"WITHSCORES"), (b"ZPOPMIN", b"z", b"1"), (b"ZPOPMAX", b"z"),
                (b"ZRANGEBYSCORE", b"z", b"(1", b"+inf"), (b"ZRANGEBYSCORE", b"z", b"-inf", b"3", b"LIMIT", b"0", b"2"),
                (b"ZREMRANGEBYSCORE", b"z", b"-inf", b"1"), (b"ZSCORE", b"z", member), (b"SET", b"k", number),
                (b"INCR", b"k"), (b"GET", b"k"), (b"EXISTS", b"h", b"s", b"z"), (b"DEL", b"s2"), (b"HGET", b"s", b"x"),
                (b"RPUSH", b"l", member), (b"LRANGE", b"l", b"0", b"-1"), (b"LRANGE", b"l", b"-2", b"-1"),
                (b"XADD", b"x", entry, b"f", member), (b"XRANGE", b"x", b"(" + entry, b"+", b"COUNT", b"2"),
                (b"XREVRANGE", b"x", entry, b"-", b"COUNT", b"1"), (b"XRANGE", b"x", entry, entry), (b"XLEN", b"x"),
                (b"XTRIM", b"x", b"MINID", b"%d-0" % chance.randint(1, 12)), (b"XDEL", b"x", entry),
            ]
        )
    )  # fmt: skip


def of_the_server(client: Any, *args: Any) -> Any:
    try:
        return client.execute_command(*args)
    except blocking.ResponseError as error:
        return str(error)[:20]


def of_the_model(data: Data, args: list[bytes]) -> Any:
    try:
        reply = data.call(args)
    except CommandError as error:
        return str(error).removeprefix("ERR ")[:20]
    return bytes(reply) if isinstance(reply, Status) else reply


def test_every_command_that_scripts_use_is_known() -> None:
    used = {
        name.encode()
        for path in Path(shared.__file__).parent.rglob("*.lua")
        for name in re.findall(r"redis\.call\(\s*'([A-Z]+)'", path.read_text())
    }
    assert used - COMMANDS.keys() == set()


def test_random_commands_are_answered_as_by_the_server(valkey_server: RedisServer) -> None:
    chance, data = random.Random(7), Data(lambda: 1000)
    with blocking.Redis(port=valkey_server.port, db=5, protocol=2) as client:
        client.flushdb()
        client.response_callbacks.clear()
        for number in range(CALLS):
            args = drawn(chance)
            expected, answered = of_the_server(client, *args), of_the_model(data, args)
            if args[0] == b"HGETALL":
                expected, answered = sorted(expected), sorted(answered)
            assert answered == expected, f"call {number}: {args}"


def test_effects_repeated_make_the_same_data() -> None:
    chance, data, repeated = random.Random(3), Data(lambda: 1000), Data(lambda: 2000)
    for _ in range(CALLS):
        of_the_model(data, drawn(chance))
    repeated.repeat(list(data.effects))
    assert repeated.values == data.values
    assert repeated.expiries_ms == data.expiries_ms


def test_scripts_are_answered_as_by_the_server(valkey_server: RedisServer) -> None:
    """A read, a commit, a trim and another read, with what each has left for the next."""
    data = Data(lambda: 1000)
    fields = ["gen", 1, "layout", "0 1", "backlog_ops", 0, "backlog_bytes", 0, "head", 1]
    with blocking.Redis(port=valkey_server.port, db=6, protocol=2) as client:
        client.flushdb()
        client.response_callbacks.clear()
        client.execute_command("HSET", "state", *fields)
        data.call([b"HSET", b"state", *[str(field).encode() for field in fields]])
        pointer = '{"version":1,"hash":"h","covers":3}'
        read = ["state", "log"], ["0-0", "", "", "head", "tail:0", "m:0"]
        trim: tuple[list[str], list[Any]] = (["state", "log"], [0, 1, "h", 3])
        calls: list[tuple[Script, tuple[list[str], list[Any]]]] = [
            (READ, read),
            (COMMIT, (["state"], ["m:0", "", pointer, 3, ""])),
            (TRIM, trim),
            (READ, read),
        ]
        for script, (keys, args) in calls:
            expected = of_the_server(client, "EVAL", script.text, len(keys), *keys, *args)
            sha = SCRIPTS.sha_of(script.text.encode())
            try:
                answered = SCRIPTS.run(data, sha, [key.encode() for key in keys], [str(arg).encode() for arg in args])
            except CommandError as error:
                answered = str(error).removeprefix("ERR ")[:20]
            if script is READ and isinstance(answered, list):
                expected, answered = expected[:-1], answered[:-1]  # the mark: each packs values in its own way
            assert answered == expected, script.text[:200]
