"""Whether this Redis holds the cluster, or is empty after a loss and has still to be restored."""

from __future__ import annotations

import uuid
from dataclasses import dataclass
from typing import Any, Final

from redis.asyncio import Redis

from shared.errors import Corrupt, Unavailable
from shared.redis.client import command, persist
from shared.redis.keys import Keys
from shared.redis.scripts import Argument, Script

FORMAT: Final = 1
CLUSTER: Final = Script("shared.catalog", "cluster")


@dataclass(frozen=True, slots=True)
class Cluster:
    """The mark that a founded cluster leaves. `epoch` counts the restorations after a loss."""

    id: str
    epoch: int

    @staticmethod
    def new() -> Cluster:
        return Cluster(str(uuid.uuid4()), 0)


class Founding:
    """The cluster's mark. Only the log service sets it, once it knows that nothing is missing or has restored it."""

    def __init__(self, redis: Redis, keys: Keys) -> None:
        self._redis = redis
        self._keys = keys

    async def cluster(self) -> Cluster | None:
        """None: this Redis is empty, or its restoration has not ended."""
        call = ("HMGET", self._keys.cluster, "id", "epoch", "format")
        cluster_id, epoch, stored = await persist(lambda: command(self._redis, *call), writes=False)
        if cluster_id is None:
            return None
        if int(stored) != FORMAT:
            raise Corrupt(f"this Redis holds data of format {int(stored)}; this build reads format {FORMAT}")
        return Cluster(cluster_id.decode(), int(epoch))

    async def require(self) -> None:
        """Raises Unavailable unless the cluster is there: what seems missing may only be not yet restored."""
        if await self.cluster() is None:
            raise Unavailable("The log service has not opened this cluster yet")

    async def found(self, cluster: Cluster | None = None, run: str | None = None) -> Cluster:
        """Sets the mark, of a new cluster or of the one that was restored. From here on `run` (the present one) is
        verified.
        """
        founded = cluster or Cluster.new()
        verified = run or (await self.server_run())[0]
        await self._run("mark", "id", founded.id, "epoch", founded.epoch, "format", FORMAT, "verified", verified)
        return founded

    async def server_run(self) -> tuple[str, bool]:
        """The server's present run (a restart or a failover begins another one), and whether it was verified."""
        info: dict[str, Any] = await persist(lambda: command(self._redis, "INFO", "server"), writes=False)
        verified = await persist(lambda: command(self._redis, "HGET", self._keys.cluster, "verified"), writes=False)
        run = str(info["run_id"])
        return run, verified is not None and verified.decode() == run

    async def mark_verified(self, run: str) -> None:
        await self._run("mark", "verified", run)

    async def write_report(self, report: bytes) -> None:
        await self._run("report", report)

    async def _run(self, *args: Argument) -> None:
        await CLUSTER.run(self._redis, [self._keys.cluster, self._keys.report], args)
