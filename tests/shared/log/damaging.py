"""Damage to the streams of a real server."""

from __future__ import annotations

from redis.asyncio import Redis

from shared.redis.client import command


async def replace_entry(redis: Redis, key: str, number: int, **changed: bytes) -> None:
    """Writes the stream anew, with some fields of one of its entries changed; `gone=b""` leaves the entry out."""
    entries = await command(redis, "XRANGE", key, "-", "+")
    await command(redis, "DEL", key)
    for at, (id_, fields) in enumerate(entries):
        if at == number:
            fields.update({name.encode(): value for name, value in changed.items()})
        if b"gone" not in fields:
            await command(redis, "XADD", key, id_, *(part for pair in fields.items() for part in pair))
