"""Leases: claims on a piece of work, which expire. They save work and decide nothing: two holders do no harm."""

from __future__ import annotations

from redis.asyncio import Redis

from shared.redis.keys import Keys
from shared.redis.scripts import Script

LEASE = Script("shared.cluster", "lease")


class Lease:
    """The lease `name` as one holder sees it. An acquired lease expires `ttl_s` seconds later if it is not renewed. Its
    methods raise Unavailable and UnknownOutcome.
    """

    def __init__(self, redis: Redis, keys: Keys, name: str, holder: str, ttl_s: float) -> None:
        self._redis = redis
        self._key = keys.lease(name)
        self._holder = holder
        self._ttl_ms = max(1, int(ttl_s * 1000))

    async def acquire(self) -> bool:
        """Takes the lease if nobody else has it, or prolongs it; whether the holder has it now."""
        return bool(await LEASE.run(self._redis, [self._key], ["acquire", self._holder, self._ttl_ms]))

    async def renew(self) -> bool:
        """Prolongs the lease; False when it has expired or somebody else has it."""
        return bool(await LEASE.run(self._redis, [self._key], ["renew", self._holder, self._ttl_ms]))

    async def release(self) -> None:
        """Gives the lease back, if the holder has it."""
        await LEASE.run(self._redis, [self._key], ["release", self._holder])
