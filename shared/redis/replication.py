"""Commands that replicas of the server have to have before they count.

WAIT answers how many replicas have received all that *its own connection* has written. So it goes over the very
connection that the script ran on, right behind it, in one round trip. A script that is repeated may find that it had
run before, and writes nothing then: WAIT would answer for a connection without writes, which any replica has. So a
small write stands between the two. Replication is one stream: a replica that has the small write has everything before.

WAITAOF, which waits for the replicas' disks, would need an append-only file on each replica, and with its usual fsync
every second it takes about as long. The server's own disk needs no waiting: it answers after its fsync.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, Final, NamedTuple

from redis.asyncio import Redis
from redis.exceptions import NoScriptError

from shared.redis.client import command, retry_idempotent
from shared.redis.scripts import Argument, Script

WAIT_MS: Final = 2000
"""Longest time that replicas may take, in milliseconds. A healthy one takes less than one."""

_ONLINE: Final = re.compile(rb"^slave\d+:.*\bstate=online\b", re.MULTILINE)


class Replicated(NamedTuple):
    """The reply of a script, and how many replicas have all that it wrote."""

    reply: Any
    replicas: int


async def attempt_replicated(
    redis: Redis,
    script: Script,
    keys: Sequence[str],
    args: Sequence[Argument],
    replicas: int,
    *,
    touched: str,
    ttl_s: int,
) -> Replicated:
    """Runs the script once, then waits for so many replicas. `touched` is a key that the script has made, and that
    lives for `ttl_s` seconds more: the small write. For `retry_idempotent`: raises redis-py's errors.
    """
    call = ("EVALSHA", script.sha, len(keys), *keys, *args)
    try:
        return await _run(redis, call, replicas, touched, ttl_s)
    except NoScriptError:
        return await _run(redis, ("EVAL", script.text, *call[2:]), replicas, touched, ttl_s)


async def _run(redis: Redis, call: Sequence[Any], replicas: int, touched: str, ttl_s: int) -> Replicated:
    async with redis.pipeline(transaction=False) as pipeline:  # one connection for all of it
        pipeline.execute_command(*call)
        pipeline.execute_command("EXPIRE", touched, ttl_s)
        pipeline.execute_command("WAIT", replicas, WAIT_MS)
        reply, _, reached = await pipeline.execute(raise_on_error=False)
    for each in (reply, reached):
        if isinstance(each, Exception):
            raise each
    return Replicated(reply, int(reached))


async def online_replicas(redis: Redis) -> int:
    """The number of replicas that the server sends its writes to. Raises Unavailable."""
    info = await retry_idempotent(lambda: command(redis, "INFO", "replication"), writes=False)
    return len(_ONLINE.findall(info if isinstance(info, bytes) else _lines_of(info)))


def _lines_of(info: dict[str, Any]) -> bytes:
    """The lines about replicas, as the server writes them, of what redis-py makes of INFO."""
    lines = [
        f"{name}:" + ",".join(f"{key}={value}" for key, value in each.items())
        for name, each in info.items()
        if isinstance(each, dict)
    ]
    return "\n".join(lines).encode()
