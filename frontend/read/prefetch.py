"""Prefetching after a change of membership: workers load the shards that they rank first for before these are read.

A frontend remembers the shards that it read recently. When a shard ranks another worker first than before, that worker
is called to load it (`prefetch`), a few shards at a time. Until it has answered, the shard is read from the workers
that had it, as far as these are still there. A worker that has the shard already answers at once.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Final, NamedTuple

import numpy as np
from prometheus_client import Counter

from shared.cluster.placement import hashes, weights
from shared.errors import PolychromeError
from shared.process.telemetry import get_logger
from shared.records.model import ReadLevel
from shared.rpc.messages import PrefetchRequest, Shard
from shared.rpc.query_worker_methods import PREFETCH
from shared.vectors.arrays import Hashes

if TYPE_CHECKING:
    from shared.cluster.membership import Member
    from shared.rpc.client import RpcClient

RECENT_MAX: Final = 1024
"""Recently read shards that are remembered."""

LOADS_PER_WORKER: Final = 4
"""Shards that one worker loads at a time for this frontend."""

LOAD_S_MAX: Final = 20.0
"""Longest time that a worker may take to load a shard, in seconds; the shard is read from it afterwards in any case."""

PREFETCHES = Counter("polychrome_frontend_prefetches_total", "Shards that a worker was called to load.", ["ending"])

log = get_logger(__name__)


class Move(NamedTuple):
    """The shard `key`, which now ranks `worker` among the first and did not before. `kept`: one of the workers that it
    ranked first before is still there.
    """

    key: str
    worker: str
    kept: bool


def moves(keys: Sequence[str], before: Sequence[str], now: Sequence[str], replicas: int) -> list[Move]:
    """The shards of `keys` that move when the workers `before` are replaced by those `now`, each of which is served by
    the first `replicas` workers in its rank. Pure.
    """
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
    """For each shard the first `replicas` workers in its rank."""
    places = np.argsort(weights(shards, hashes(workers)), axis=1)[:, -replicas:]
    return [{workers[place] for place in row} for row in places.tolist()]


class Prefetch:
    """The shards that this frontend read recently, and the workers that are loading some of them."""

    def __init__(self, rpc: RpcClient, replicas: int) -> None:
        self._rpc = rpc
        self._replicas = replicas
        self._recent: OrderedDict[str, None] = OrderedDict()
        self._loading: dict[str, set[str]] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    def used(self, key: str) -> None:
        """Notes that the shard is read."""
        self._recent[key] = None
        self._recent.move_to_end(key)
        if len(self._recent) > RECENT_MAX:
            self._recent.popitem(last=False)

    def loading(self, key: str) -> set[str] | None:
        """The workers that the shard ranks first and that are still loading it, while another worker has it; usually
        None.
        """
        return self._loading.get(key)

    def changed(self, before: Sequence[str], members: Mapping[str, Member]) -> None:
        """Has workers load the shards that a new membership moves to them. `before`: the ids of the old members."""
        limits = {worker: asyncio.Semaphore(LOADS_PER_WORKER) for worker in members}
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
                payload = PREFETCH.encode_request(request)
                await self._rpc.begin(worker.address, PREFETCH.name, payload, timeout_s=LOAD_S_MAX)
        except PolychromeError as error:
            PREFETCHES.labels(error.code).inc()
            log.debug("not_prefetched", worker=worker.id, shard=key, code=error.code)
        else:
            PREFETCHES.labels("ok").inc()
        finally:
            self._loading.get(key, set()).discard(worker.id)
            if not self._loading.get(key):
                self._loading.pop(key, None)
