"""Connections that exist only to a server whose content was compared with the bucket.

A server that restarted may have come back older than it was (a copy of yesterday, a lost disk, a replica that lagged).
Nothing may be appended to it or read from it before the log service has looked. So every process but the log service
asks, once per connection and before any command, which run of the server it talks to, and hangs up unless the
cluster's mark says that this very run was verified. A connection cannot outlive its server, and a run's name is random
and new with every start: whatever is sent over a connection that was let through reaches a verified run, whenever the
server is killed. It costs nothing per command.
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
    """As `open_redis`; while the server is not verified, it is as if it was away."""

    async def verify(connection: Connection) -> None:
        await connection.on_connect()
        run = run_of(await _ask(connection, "INFO", "server"))
        verified = await _ask(connection, "HGET", keys.cluster, "verified")
        if verified is None or verified.decode() != run:
            raise NotConnected("the log service has not compared this run of the server with the bucket yet")

    async with open_redis(url, verify) as client:
        yield client


def run_of(info: bytes) -> str:
    """The server's run in the answer to INFO."""
    for line in info.decode().splitlines():
        name, _, value = line.partition(":")
        if name == "run_id":
            return value
    raise NotConnected("the server does not say which run of itself it is")


async def _ask(connection: Connection, *call: str) -> Any:
    await connection.send_command(*call)
    return await connection.read_response()
