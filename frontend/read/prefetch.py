"""After a change of membership: workers load the shards that are theirs now before they are asked for them.

A frontend remembers the shards that it served lately. Those that now rank another worker first are named to it
(`prefetch`), a few at a time. Until it has answered, reads of such a shard go on to whoever had it, if that one is
still there. A worker that has the shard already only says so.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Final, NamedTuple

import msgspec
import numpy as np
from prometheus_client import Counter

from shared.cluster.placement import hashes, weights
from shared.errors import PolychromeError
from shared.process.telemetry import get_logger
from shared.records.model import ReadLevel
from shared.rpc.messages import PrefetchRequest, Shard
from shared.vectors.arrays import Hashes

if TYPE_CHECKING:
    from shared.cluster.membership import Member
    from shared.rpc.client import RpcClient

RECENT_MAX: Final = 1024
AT_ONCE: Final = 4
"""Shards that one worker loads at a time at our behest."""
LOAD_S_MAX: Final = 20.0

PREFETCHES = Counter("polychrome_frontend_prefetches_total", "Shards that a worker was told to load", ["ending"])

log = get_logger(__name__)


class Move(NamedTuple):
    """A shard that now ranks `worker` among the first; `kept` when somebody who did before is still there."""

    key: str
    worker: str
    kept: bool


def moves(keys: Sequence[str], before: Sequence[str], now: Sequence[str], replicas: int) -> list[Move]:
    """What a change of the workers moves. Pure."""
    if not keys or not before or not now:
        return []
    shards = hashes(keys)
    had, have = _first(shards, before, replicas), _first(shards, now, replicas)
    here = set(now)
    return [
        Move(key, worker, not here.isdisjoint(old))
        for key, old, new in zip(keys, had, have, strict=True)
        for worker in sorted(new - old)
    ]


def _first(shards: Hashes, workers: Sequence[str], replicas: int) -> list[set[str]]:
    """The best workers of each shard."""
    places = np.argsort(weights(shards, hashes(workers)), axis=1)[:, -replicas:]
    return [{workers[place] for place in row} for row in places.tolist()]


class Prefetch:
    """One per frontend."""

    def __init__(self, rpc: RpcClient, replicas: int) -> None:
        self._rpc = rpc
        self._replicas = replicas
        self._recent: OrderedDict[str, None] = OrderedDict()
        self._loading: dict[str, set[str]] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    def used(self, key: str) -> None:
        """A shard was read."""
        self._recent[key] = None
        self._recent.move_to_end(key)
        if len(self._recent) > RECENT_MAX:
            self._recent.popitem(last=False)

    def loading(self, key: str) -> set[str] | None:
        """Workers that rank first for the shard and are still loading it, while somebody else has it; usually None."""
        return self._loading.get(key)

    def changed(self, before: Sequence[str], members: Mapping[str, Member]) -> None:
        """The workers are others now."""
        limits = {worker: asyncio.Semaphore(AT_ONCE) for worker in members}
        for move in moves(list(reversed(self._recent)), before, list(members), self._replicas):
            if move.kept:
                self._loading.setdefault(move.key, set()).add(move.worker)
            task = asyncio.create_task(self._load(members[move.worker], move.key, limits[move.worker]))
            self._tasks.add(task)  # the loop holds tasks weakly
            task.add_done_callback(self._tasks.discard)

    async def _load(self, worker: Member, key: str, limit: asyncio.Semaphore) -> None:
        collection, _, shard = key.rpartition("/")
        request = PrefetchRequest(Shard(collection, int(shard), ReadLevel.INDEX_ONLY))
        try:
            async with limit:
                payload = msgspec.msgpack.encode(request)
                await self._rpc.begin(worker.address, "prefetch", payload, timeout_s=LOAD_S_MAX)
        except PolychromeError as error:
            PREFETCHES.labels(error.code).inc()
            log.debug("not prefetched", worker=worker.id, shard=key, code=error.code)
        else:
            PREFETCHES.labels("ok").inc()
        finally:
            self._loading.get(key, set()).discard(worker.id)
            if not self._loading.get(key):
                self._loading.pop(key, None)
