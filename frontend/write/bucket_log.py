"""Puts the log of collections into the bucket before writes are acknowledged, for the durability class `bucket`.

A write of this class has to survive the loss of Redis, and with it everything that it came after. So before it is
acknowledged, each shard's log is in the bucket from the end of its newest manifest to the write's end: in sealed log
objects (`shared.history.sealed_log`) that join, made of the stream as it is, with the writes of all frontends and
classes in it. A restoration reads them behind the manifests (`shared.history.bucket_tail`).

```text
stream     [ manifest covers )[ sealed before )[ sealed now, one object )
           0                  c                e                        head at the read
```

Beside them it leaves a number of a commit (`shared.manifest.commits`), so that a Redis that goes back shows.

Writes share objects: while one of a shard is being written, those that come wait for the next, which begins after
them. What is written twice, because two frontends do this at once or compaction seals it for the history, is the same
twice, and does no harm.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

from prometheus_client import Counter, Histogram

from shared.cluster.placement import ShardKey
from shared.history.archive import SealedLogs
from shared.history.sealed_log import OBJECT_BYTES
from shared.log.state import Entry, after_position, position_of
from shared.manifest.commits import CommitNumbers
from shared.objects.keys import SealedRange
from shared.process.coalesced import Coalesced
from shared.process.concurrency import together

if TYPE_CHECKING:
    from shared.cluster.placement import Layout
    from shared.log.log import Log
    from shared.log.state import ShardRead
    from shared.objects.port import ObjectStore

SHARDS_MAX: Final = 10_000
"""Shards of which it is remembered how far they are in the bucket; of others it is begun at the manifest again."""

OBJECTS: Final = Counter("polychrome_frontend_bucket_log_objects_total", "Sealed log objects written before an answer.")
SECONDS: Final = Histogram(
    "polychrome_frontend_bucket_log_seconds",
    "Time to put a shard's log into the bucket.",
    buckets=(0.003, 0.01, 0.03, 0.1, 0.3, 1, 3, 10),
)


class BucketLog:
    """The log of all shards that have writes of this class, as far as it is in the bucket."""

    def __init__(self, log: Log, objects: ObjectStore) -> None:
        self._log = log
        self._sealed = SealedLogs(objects)
        self._commits = CommitNumbers(objects)
        self._signs = Coalesced(self._leave_sign)
        self._shards: OrderedDict[ShardKey, _Shard] = OrderedDict()

    async def reach(self, collection_id: str, layout: Layout) -> None:
        """Returns when the log of all shards of the layout is in the bucket, as far as it went when this was called.
        Raises Gone, Corrupt, Unavailable.
        """
        shards = [self._shard((collection_id, number)).runs.run() for number in layout.numbers]
        await together([self._signs.run(), *shards])

    async def _leave_sign(self) -> None:
        """Leaves the next number of a commit in the bucket. A Redis that went back to before has not drawn it: by that
        the log service notices, and compares every collection with the bucket.
        """
        await self._commits.leave(await self._log.draw_commit())

    def _shard(self, key: ShardKey) -> _Shard:
        found = self._shards.get(key)
        if found is None:
            found = self._shards[key] = _Shard(*key, self._log, self._sealed)
            while len(self._shards) > SHARDS_MAX:
                self._shards.popitem(last=False)  # one that is in use goes on, and its successor begins anew
        self._shards.move_to_end(key)
        return found


class _Shard:
    """The log of one shard in the bucket. A run writes what came since the run before."""

    def __init__(self, collection: str, number: int, log: Log, sealed: SealedLogs) -> None:
        self._collection = collection
        self._number = number
        self._log = log
        self._sealed = sealed
        self._end = 0
        """Up to here the log is in the bucket, from the end of some manifest on."""
        self._since: tuple[int, int] | None = None
        """The epoch and the floor of the state then: where one has changed, the log may have been given up."""
        self.runs = Coalesced(self._write)

    async def _write(self) -> None:
        with SECONDS.time():
            if self._since is None:
                [state] = await self._log.states([(self._collection, self._number)])
                self._end = state.pointer.covers if state is not None and state.pointer is not None else 1
            read = await self._read(self._end)
            covers = read.state.pointer.covers if read.state.pointer else 1
            since = (read.state.epoch, read.state.floor)
            if since != self._since or covers > self._end or read.state.trimmed > self._end:
                # The first time, or compaction has overtaken it, or the state was restored: from the manifest on.
                self._end, self._since = covers, since
                read = await self._read(self._end)
            while not read.complete:
                last = read.entries[-1]
                await self._create(position_of(last.id) + last.count, read.entries)
                read = await self._read(self._end)
            if read.state.head > self._end:
                await self._create(read.state.head, read.entries)

    async def _read(self, begin: int) -> ShardRead:
        return await self._log.read(self._collection, self._number, after_position(max(begin, 1)), OBJECT_BYTES)

    async def _create(self, end: int, entries: Sequence[Entry]) -> None:
        await self._sealed.create(SealedRange(self._collection, self._number, self._end, end), entries)
        self._end = end
        OBJECTS.inc()
