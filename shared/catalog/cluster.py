"""The mark of an open cluster: whether this Redis holds it, or is empty after a loss and has to be restored."""

from __future__ import annotations

import uuid
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

from redis.asyncio import Redis

from shared.errors import Corrupt, Garbled, Unavailable
from shared.limits import OWED_RAISES_MAX
from shared.redis.client import command, retry_idempotent
from shared.redis.fence import close_verified
from shared.redis.keys import Keys
from shared.redis.scripts import Argument, Script

FORMAT: Final = 1
MARK_NAME: Final = "cluster"
"""The name of the mark where it is damaged."""
"""The version of the format that this build keeps in Redis."""

CLUSTER: Final = Script("shared.catalog", "cluster")


@dataclass(frozen=True, slots=True)
class Cluster:
    """The content of the mark: the cluster's id, and its `epoch`, which counts the restorations after a loss."""

    id: str
    epoch: int

    @staticmethod
    def new() -> Cluster:
        return Cluster(str(uuid.uuid4()), 0)


class Standing(NamedTuple):
    """The base of an open cluster: its id and epoch, and the run of the server that was compared with the bucket.
    While it is the same, nothing was lost that was written since.
    """

    cluster: Cluster
    run: str


class OwedRaises(NamedTuple):
    """The raises of heads that no snapshot may have yet: how many since the last one that has them all, and the run of
    the server for which they were raised last ("" for none).
    """

    owed: int
    run: str


class ServerRun(NamedTuple):
    """A run of the Redis server, from one start to its end. `verified`: what it holds was compared with the bucket."""

    id: str
    verified: bool


class ClusterMark:
    """The mark in Redis, and the report of the last reconciliation beside it. Only the log service writes them, once it
    knows that nothing is missing or has restored it. Everything raises Unavailable while Redis is away.
    """

    def __init__(self, redis: Redis, keys: Keys) -> None:
        self._redis = redis
        self._keys = keys

    async def read(self) -> Cluster | None:
        """None while this Redis holds no cluster, or one whose restoration has not ended. Raises Corrupt when what it
        holds is of another format, and Garbled when a field of the mark is missing or cannot be read.
        """
        fields = await self._identity()
        if fields == [None, None, None]:
            return None
        cluster_id, epoch, stored = fields
        if not (cluster_id and cluster_id.isascii() and _is_number(epoch) and _is_number(stored)):
            raise Garbled("a field of the cluster's mark cannot be read", MARK_NAME)
        if int(stored or 0) != FORMAT:
            raise Corrupt(f"this Redis holds data of format {int(stored or 0)}; this build reads format {FORMAT}")
        return Cluster(cluster_id.decode(), int(epoch or 0))

    async def _identity(self) -> list[bytes | None]:
        call = ("HMGET", self._keys.cluster, "id", "epoch", "format")
        found: list[bytes | None] = await retry_idempotent(lambda: command(self._redis, *call), writes=False)
        return found

    async def mend(self, cluster: Cluster) -> None:
        """Puts the cluster, as the bucket has it, in the place of a mark that cannot be read. What Redis holds has to
        be compared with the bucket then, as if it had gone back (`is_doubted`): the epoch may be one that was not
        opened. Connections of other processes are closed, which relied on the mark of before.
        """
        before = [field or b"" for field in await self._identity()]
        await self._run("mend", cluster.epoch, OWED_RAISES_MAX, *before, cluster.id, FORMAT)
        await self.close_connections()

    async def is_doubted(self) -> bool:
        """Whether the mark was mended, and nothing was opened since."""
        call = ("HEXISTS", self._keys.cluster, "doubted")
        return bool(await retry_idempotent(lambda: command(self._redis, *call), writes=False))

    async def require(self) -> None:
        """Raises Unavailable unless the cluster is open: what seems missing may only be not yet restored."""
        if await self.read() is None:
            raise Unavailable("The log service has not opened this cluster yet")

    async def require_same(self, cluster: Cluster) -> None:
        """Raises Unavailable when the cluster was lost or restored since it was read as `cluster`."""
        if await self.read() != cluster:
            raise Unavailable("The cluster was lost or restored meanwhile")

    async def standing(self) -> Standing:
        """Raises Unavailable unless the cluster is open."""
        call = ("HMGET", self._keys.cluster, "id", "epoch", "verified")
        cluster_id, epoch, verified = await retry_idempotent(lambda: command(self._redis, *call), writes=False)
        if cluster_id is None:
            raise Unavailable("The log service has not opened this cluster yet")
        if not (cluster_id.isascii() and _is_number(epoch)):
            raise Garbled("a field of the cluster's mark cannot be read", MARK_NAME)
        return Standing(Cluster(cluster_id.decode(), int(epoch)), _text(verified))

    async def begin(self) -> str:
        """Begins a restoration of this Redis; returns its token, which `open` and `write_report` require. It is lost
        with all that was restored when Redis is emptied once more, and another restoration has another one.
        """
        token = uuid.uuid4().hex
        await self._run("begin", token)
        return token

    async def open(self, cluster: Cluster | None = None, run: str | None = None, token: str = "") -> Cluster:
        """Opens a new cluster in this Redis, or the one that was restored; returns it. `run`, the server's run that was
        compared with the bucket (None: the present one), is verified from here on. For the log service, and for tests
        that run without one. `token` is that of the restoration, "" where nothing was restored. Raises Unavailable when
        Redis was emptied or restored again meanwhile: the token is another one, or the mark is of a later epoch.
        """
        opened = cluster or Cluster.new()
        verified = run or (await self.server_run()).id
        fields = ("id", opened.id, "format", FORMAT, "verified", verified, "owed", 0)
        await self._run("open", opened.epoch, token, *fields)
        return opened

    async def server_run(self) -> ServerRun:
        """The server's present run; a restart or a failover begins another one."""
        info: dict[str, Any] = await retry_idempotent(lambda: command(self._redis, "INFO", "server"), writes=False)
        verified = await retry_idempotent(
            lambda: command(self._redis, "HGET", self._keys.cluster, "verified"), writes=False
        )
        run = str(info["run_id"])
        return ServerRun(run, _text(verified) == run)

    async def close_connections(self) -> int:
        """Closes the connections of all processes that rely on a mark of before; their number. For the log service,
        when it finds no mark: the server may have lost it while it ran.
        """
        return await close_verified(self._redis, self._keys)

    async def mark_verified(self, run: str, epoch: int) -> None:
        """Says that what this run of the server holds was compared with the bucket. Raises Unavailable unless the
        cluster is in this epoch.
        """
        await self._run("verify", epoch, run)

    async def owed_raises(self) -> OwedRaises:
        """The raises of heads that no snapshot may have yet."""
        call = ("HMGET", self._keys.cluster, "owed", "raised")
        owed, run = await retry_idempotent(lambda: command(self._redis, *call), writes=False)
        return OwedRaises(int(owed or 0) if _is_number(owed or b"0") else OWED_RAISES_MAX, _text(run))

    async def owe_raise(self, epoch: int) -> None:
        """Counts a raise of heads, before it begins. Raises Unavailable unless the cluster is in this epoch."""
        await self._run("owe", epoch, OWED_RAISES_MAX)

    async def mark_raised(self, run: str, epoch: int) -> None:
        """Says that heads were raised for this run of the server. Raises Unavailable unless the cluster is in this
        epoch.
        """
        await self._run("raised", epoch, run)

    async def settle_raises(self, run: str) -> None:
        """Says that a snapshot has all heads that were raised up to this run of the server. Nothing happens when they
        were raised for a later one since.
        """
        await self._run("settle", run)

    async def write_report(self, report: bytes, token: str) -> None:
        """Keeps what the restoration with this token found, as JSON. Raises Unavailable when Redis was emptied or
        restored again meanwhile.
        """
        await self._run("report", token, report)

    async def amend_report(self, report: bytes, before: bytes | None) -> None:
        """Keeps this report in the place of the one before. Raises Unavailable when that is another one by now."""
        await self._run("amend", before or b"", report)

    async def read_report(self) -> bytes | None:
        """None before the first reconciliation that had something to report."""
        found: bytes | None = await retry_idempotent(
            lambda: command(self._redis, "GET", self._keys.report), writes=False
        )
        return found

    async def _run(self, *args: Argument) -> None:
        """Raises Unavailable where the script refuses."""
        keys = [self._keys.cluster, self._keys.report, self._keys.restoring]
        if await CLUSTER.run(self._redis, keys, args) == b"LATER":
            raise Unavailable("The cluster was lost or restored meanwhile, or its report has changed")


def _is_number(stored: bytes | None) -> bool:
    return stored is not None and stored.isdigit()


def _text(stored: bytes | None) -> str:
    """A field of the mark. Bytes that are no text are equal to nothing that is compared with it."""
    return (stored or b"").decode(errors="replace")
