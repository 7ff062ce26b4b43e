"""The epoch check: connections are made only to a server whose content was compared with the bucket.

A server that restarted may have come back older than it was (yesterday's copy, a lost disk, a replica that lagged).
Nothing may be appended to it or read from it before the log service has compared it. So every process but the log
service asks, once per connection and before any command, for the run id of the server, and closes the connection
unless the cluster's record says that this very run was verified.

Why that is enough: a connection cannot outlive its server, and a run id is random and new with every start. So a
command over a connection that passed the check reaches a verified run, whenever the server is killed. Commands
themselves cost nothing more. With the run comes the cluster's epoch, which appends carry (`shared.log.attempts`).

A server can also lose everything and run on (FLUSHALL). Then the connections of before would reach states that are
being restored. So each takes the cluster's name before it asks for the run; and the log service closes all that have
it, once it has found that the cluster's record is gone. Those that are made after that are refused.
"""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from redis.asyncio import Connection, Redis
from redis.exceptions import NoPermissionError

from shared.process.telemetry import get_logger
from shared.redis.client import NotConnected, command, open_redis, retry_idempotent
from shared.redis.keys import Keys

log = get_logger(__name__)


@asynccontextmanager
async def open_verified_redis(url: str, keys: Keys) -> AsyncIterator[Redis]:
    """A client as of `open_redis`. A server that is not verified counts as away."""

    async def verify(connection: Connection) -> int:
        await connection.on_connect()
        await _ask(connection, "CLIENT", "SETNAME", keys.prefix)  # first: whoever passes the check below has it
        run = run_id(await _ask(connection, "INFO", "server"))
        verified, epoch = await _ask(connection, "HMGET", keys.cluster, "verified", "epoch")
        if verified != run.encode() or epoch is None or not epoch.isdigit():
            raise NotConnected("the log service has not compared this run of the server with the bucket yet")
        return int(epoch)

    async with open_redis(url, verify) as client:
        yield client


async def close_verified(redis: Redis, keys: Keys) -> int:
    """Closes the connections of `open_verified_redis` that there are, of all processes; their number. Where the server
    does not allow that, it is logged, and nothing is closed. Raises Unavailable.
    """
    try:
        listed: bytes = await retry_idempotent(lambda: command(redis, "CLIENT", "LIST"), writes=False)
        named = re.findall(rb"(?m)^id=(\d+) .*?\bname=" + re.escape(keys.prefix.encode()) + rb" ", listed)
        for number in named:

            async def close(number: bytes = number) -> Any:
                return await command(redis, "CLIENT", "KILL", "ID", number)

            await retry_idempotent(close, writes=False)
    except NoPermissionError as error:
        log.warning("connections_not_closed", message=str(error))
        return 0
    return len(named)


def run_id(info: bytes) -> str:
    """The server's run id in the reply to INFO. Raises NotConnected for a server that does not give one."""
    for line in info.decode().splitlines():
        name, _, value = line.partition(":")
        if name == "run_id":
            return value
    raise NotConnected("the server does not say which run of itself it is")


async def _ask(connection: Connection, *call: str) -> Any:
    await connection.send_command(*call)
    return await connection.read_response()
