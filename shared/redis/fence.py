"""The epoch check: connections are made only to a server whose content was compared with the bucket.

A server that restarted may have come back older than it was (yesterday's copy, a lost disk, a replica that lagged).
Nothing may be appended to it or read from it before the log service has compared it. So every process but the log
service asks, once per connection and before any command, for the run id of the server, and closes the connection
unless the cluster's record says that this very run was verified.

Why that is enough: a connection cannot outlive its server, and a run id is random and new with every start. So a
command over a connection that passed the check reaches a verified run, whenever the server is killed. Commands
themselves cost nothing more. With the run comes the cluster's epoch, which appends carry (`shared.log.attempts`).
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from redis.asyncio import Connection, Redis

from shared.redis.client import NotConnected, open_redis
from shared.redis.keys import Keys


@asynccontextmanager
async def open_verified_redis(url: str, keys: Keys) -> AsyncIterator[Redis]:
    """A client as of `open_redis`. A server that is not verified counts as away."""

    async def verify(connection: Connection) -> int:
        await connection.on_connect()
        run = run_id(await _ask(connection, "INFO", "server"))
        verified, epoch = await _ask(connection, "HMGET", keys.cluster, "verified", "epoch")
        if verified is None or verified.decode() != run:
            raise NotConnected("the log service has not compared this run of the server with the bucket yet")
        return int(epoch)

    async with open_redis(url, verify) as client:
        yield client


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
