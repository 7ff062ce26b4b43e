"""The marks of shards that were written, and the queue of compaction jobs.

Both are hints: what is lost of them is found again by the log service's sweep of all collections, what is doubled costs
one more check.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Final

from redis.asyncio import Redis

from shared.redis.client import command, retry_idempotent, translated_errors
from shared.redis.keys import Keys
from shared.redis.scripts import Argument, Script

REBUILD: Final = -1
"""Number of the job that takes the collection's rebuild a step further, in the place of a shard's."""

FUNCTION: Final = -2
"""Number of the job that runs the function whose output the collection is, if it is behind."""

DIRTY: Final = Script("shared.log", "dirty")
JOBS: Final = Script("shared.log", "jobs")


@dataclass(frozen=True, slots=True)
class Job:
    """A piece of work for a compactor: the compaction of a shard, or what REBUILD or FUNCTION in its place say."""

    collection_id: str
    shard: int

    @property
    def name(self) -> str:
        return _name(self.collection_id, self.shard)


class Jobs:
    """The marks and the queue in Redis. Everything raises Unavailable."""

    def __init__(self, redis: Redis, keys: Keys) -> None:
        self._redis = redis
        self._keys = keys

    async def mark_dirty(self, shards: Iterable[tuple[str, int]]) -> None:
        """Marks these shards (collection id and number) as written. A mark that is there keeps its time."""
        names = [_name(*shard) for shard in shards]
        if names:
            await DIRTY.run(self._redis, [self._keys.dirty], names)

    async def take_dirty(self, n: int) -> list[tuple[str, int]]:
        """Takes away up to n marks, the oldest first; returns their shards."""
        marks = await retry_idempotent(lambda: command(self._redis, "ZPOPMIN", self._keys.dirty, n), writes=True)
        return [_shard(name) for name, _ in marks]

    async def put(self, collection_id: str, shard: int, priority: float) -> bool:
        """Queues the job, or changes its priority (higher goes first); False while a compactor holds it."""
        return bool(await self._run("put", _name(collection_id, shard), repr(float(priority))))

    async def claim(self, holder: str, lease_s: float) -> Job | None:
        """The most urgent job, leased to the holder for `lease_s` seconds; None when there is nothing to do."""
        name = await self._run("claim", holder, int(lease_s * 1000))
        return None if name is None else Job(*_shard(name))

    async def renew(self, job: Job, holder: str, lease_s: float) -> bool:
        """Prolongs the lease; False when it was lost: then another compactor may be at the job."""
        return bool(await self._run("renew", job.name, holder, int(lease_s * 1000)))

    async def finish(self, job: Job, holder: str) -> bool:
        """Gives the lease back, however the job ended: what is left to do, the log service queues anew. False when the
        lease was lost.
        """
        return bool(await self._run("finish", job.name, holder))

    async def counts(self) -> tuple[int, int]:
        """Number of jobs that are queued, and of jobs that are leased."""
        queued = await retry_idempotent(lambda: command(self._redis, "ZCARD", self._keys.jobs), writes=False)
        leased = await retry_idempotent(lambda: command(self._redis, "HLEN", self._keys.job_leases), writes=False)
        return queued, leased

    async def rebuilds(self) -> list[str]:
        """Ids of the collections that are getting other shards, as far as there are jobs for it."""
        with translated_errors():
            queued = [name async for name, _ in self._redis.zscan_iter(self._keys.jobs, f"*:{REBUILD}")]
            leased = [name async for name, _ in self._redis.hscan_iter(self._keys.job_leases, f"*:{REBUILD}")]
        return sorted({_shard(name)[0] for name in (*queued, *leased)})

    async def _run(self, verb: str, *args: Argument) -> Any:
        return await JOBS.run(self._redis, [self._keys.jobs, self._keys.job_leases], [verb, *args])


def _name(collection_id: str, shard: int) -> str:
    return f"{collection_id}:{shard}"


def _shard(name: bytes) -> tuple[str, int]:
    collection_id, _, shard = name.decode().rpartition(":")
    return collection_id, int(shard)
