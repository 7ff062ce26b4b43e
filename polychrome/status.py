"""`polychrome status`: who is there, by the membership in Redis and each process's own word."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from shared.membership import Member, Membership
from shared.redis.client import open_redis
from shared.redis.keys import Keys

from polychrome.datadir import Register, read_register
from polychrome.plan import START_ORDER
from polychrome.process import is_ready
from polychrome.redis_server import answers
from shared.config import ROLES
from shared.errors import PolychromeError


@dataclass(frozen=True, slots=True)
class Line:
    """One row of the table."""

    role: str
    name: str
    address: str
    health: str


def status(data_dir: Path, say: Callable[[str], None]) -> int:
    """Print the processes of the cluster in `data_dir`, or of the one at REDIS_URL. Returns the exit code: 0 when all
    that is known of is healthy.
    """
    register = read_register(data_dir)
    redis_url = os.environ.get("REDIS_URL") or (register.redis_url if register else None)
    if redis_url is None:
        say(f"no cluster is running in {data_dir}, and there is no REDIS_URL")
        return 1
    if not answers(redis_url):
        say("Redis does not answer")
        return 1
    prefix = register.redis_prefix if register else os.environ.get("POLYCHROME_REDIS_PREFIX", "pc")
    try:
        members = asyncio.run(_members(redis_url, prefix))
    except PolychromeError as error:
        say(f"the membership cannot be read: {error}")
        return 1
    lines = [*_local(register), *_announced(members)]
    if register:
        say(f"url  {register.url}")
    for line in table(lines):
        say(line)
    return 0 if all(line.health == "ready" for line in lines) else 1


async def _members(redis_url: str, prefix: str) -> dict[str, list[Member]]:
    async with open_redis(redis_url) as redis:
        keys = Keys(prefix)
        return {role: await Membership(redis, keys, role).members() for role in ROLES}


def _announced(members: dict[str, list[Member]]) -> list[Line]:
    return [
        Line(role, member.id, member.address, "draining" if member.draining else "ready")
        for role in START_ORDER
        for member in members.get(role, [])
    ]


def _local(register: Register | None) -> list[Line]:
    """Processes of this machine's cluster, asked one by one."""
    lines = []
    for entry in register.processes if register else []:
        if entry.admin is not None:
            health = "ready" if is_ready(entry.admin) else "not ready"
            lines.append(Line(entry.role, f"{entry.name} (pid {entry.pid})", f"admin {entry.admin}", health))
    return lines


def table(lines: list[Line]) -> list[str]:
    """Aligned columns."""
    rows = [
        ("role", "process", "address", "health"),
        *((line.role, line.name, line.address, line.health) for line in lines),
    ]
    widths = [max(len(row[column]) for row in rows) for column in range(4)]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
