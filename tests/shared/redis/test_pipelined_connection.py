"""The one connection that small scripts share."""

import asyncio
from collections.abc import AsyncIterator

import pytest
import redis.exceptions as failures
from redis.asyncio import Redis

from shared.redis import pipelined_connection
from shared.redis.client import open_redis
from tests.redis_server import RedisServer

ECHO = "return ARGV[1]"


@pytest.fixture
async def taught(own_server: RedisServer) -> AsyncIterator[tuple[Redis, str]]:
    """A client, and the name of a script that answers its argument."""
    async with open_redis(own_server.url) as redis:
        yield redis, await redis.script_load(ECHO)


async def connections(redis: Redis) -> int:
    return len(await redis.client_list())


async def test_answers_find_their_callers(taught: tuple[Redis, str]) -> None:
    redis, sha = taught
    answers = await asyncio.gather(*(redis.evalsha(sha, 0, f"answer {i}") for i in range(20)))
    assert answers == [f"answer {i}".encode() for i in range(20)]
    assert await connections(redis) == 2  # the shared one, and one of the pool that asks this


async def test_an_error_fails_its_own_caller_alone(taught: tuple[Redis, str]) -> None:
    redis, sha = taught
    outcomes = await asyncio.gather(
        redis.evalsha(sha, 0, "a"), redis.evalsha("0" * 40, 0), redis.evalsha(sha, 0, "b"), return_exceptions=True
    )
    assert [*outcomes[0::2]] == [b"a", b"b"]
    assert isinstance(outcomes[1], failures.NoScriptError)


async def test_a_cancelled_callers_answer_reaches_nobody_else(taught: tuple[Redis, str]) -> None:
    redis, sha = taught
    await redis.evalsha(sha, 0, "opens the connection")
    cancelled = asyncio.ensure_future(redis.evalsha(sha, 0, "nobody's"))
    await asyncio.sleep(0)
    cancelled.cancel()
    assert await redis.evalsha(sha, 0, "mine") == b"mine"
    assert cancelled.cancelled()


async def test_what_is_large_takes_a_connection_of_its_own(taught: tuple[Redis, str]) -> None:
    redis, sha = taught
    large = b"x" * (pipelined_connection.COMMAND_BYTES_MAX + 1)
    answers = await asyncio.gather(*(redis.evalsha(sha, 0, large) for _ in range(3)), redis.evalsha(sha, 0, "small"))
    assert answers == [large, large, large, b"small"]
    assert await connections(redis) > 2


async def test_more_than_fits_at_once_is_spread_over_the_pool(taught: tuple[Redis, str]) -> None:
    redis, sha = taught
    some = b"x" * (pipelined_connection.IN_FLIGHT_BYTES_MAX // 4)
    assert await asyncio.gather(*(redis.evalsha(sha, 0, some) for _ in range(12))) == [some] * 12


async def test_a_lost_connection_fails_what_is_in_flight_and_is_opened_again(
    own_server: RedisServer, taught: tuple[Redis, str]
) -> None:
    redis, sha = taught
    await redis.evalsha(sha, 0, "opens the connection")
    with own_server.frozen():
        waiting = [asyncio.ensure_future(redis.evalsha(sha, 0, "lost")) for _ in range(3)]
        await asyncio.sleep(0)
        await asyncio.to_thread(own_server.restart)
    outcomes = await asyncio.gather(*waiting, return_exceptions=True)
    assert all(isinstance(outcome, failures.ConnectionError) for outcome in outcomes)
    await redis.script_load(ECHO)
    assert await redis.evalsha(sha, 0, "again") == b"again"


async def test_a_caller_that_gives_up_on_a_silent_server_takes_the_connection_along(
    own_server: RedisServer, taught: tuple[Redis, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pipelined_connection, "STALLED_S", 0.02)
    redis, sha = taught
    await redis.evalsha(sha, 0, "opens the connection")
    with own_server.frozen():
        other = asyncio.ensure_future(redis.evalsha(sha, 0, "lost"))
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(redis.evalsha(sha, 0, "given up"), 0.05)
        with pytest.raises(failures.ConnectionError):
            await other
    assert await redis.evalsha(sha, 0, "over another") == b"over another"
