"""Leases: who does a piece of work for now. They save work and decide nothing: two holders at once do no harm."""

from __future__ import annotations

from redis.asyncio import Redis

from shared.redis.keys import Keys
from shared.redis.scripts import Script

LEASE = Script("shared.cluster", "lease")


class Lease:
    """The lease `name`, as seen by one holder. Every method raises Unavailable while Redis is away."""

    def __init__(self, redis: Redis, keys: Keys, name: str, holder: str, ttl_s: float) -> None:
        self._redis = redis
        self._key = keys.lease(name)
        self._holder = holder
        self._ttl_ms = max(1, int(ttl_s * 1000))

    async def acquire(self) -> bool:
        """Whether the holder has it now; prolongs it when the holder had it already."""
        return bool(await LEASE.run(self._redis, [self._key], ["acquire", self._holder, self._ttl_ms]))

    async def renew(self) -> bool:
        """Prolongs it; False when it has expired or somebody else has it."""
        return bool(await LEASE.run(self._redis, [self._key], ["renew", self._holder, self._ttl_ms]))

    async def release(self) -> None:
        """Gives it back, if the holder has it."""
        await LEASE.run(self._redis, [self._key], ["release", self._holder])
