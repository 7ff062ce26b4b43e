"""Giving a collection another layout of shards: the steps in Redis (docs/design/2026-11-21-rebuild.md).

Each is one script in the collection's slot that compares before it sets, so that any number of processes may be at it,
and any of them may die.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from redis.asyncio import Redis

from shared.cluster.placement import Layout
from shared.errors import Gone
from shared.log.batch import EncodedEntry
from shared.log.state import Pointer, Routing, entry_id
from shared.redis.client import command, retry_idempotent
from shared.redis.keys import Keys
from shared.redis.scripts import Argument, Script

REBUILD: Final = Script("shared.log", "rebuild", uses=["entries", "cut"])

APPEND_STOP_MS: Final = 1000
"""Longest time for which appends wait while the layout is switched. That takes milliseconds, unless the process that
switches dies: then the stop expires.
"""


@dataclass(frozen=True, slots=True)
class CopiedEntry:
    """An entry for the stream of a new shard: operations of the append at the positions [first, end). `last` marks the
    append's last entry in that stream; `time_ms` is when it was made, in ms since the epoch.
    """

    first: int
    end: int
    last: bool
    time_ms: int
    encoded: EncodedEntry


CopiedBatches = Mapping[int, Sequence[CopiedEntry]]
"""By new shard, the entries to add to its stream."""


class Rebuilds:
    """The steps of rebuilds. False or None says that another process was faster, and that the state is to be read
    again. `epoch` is that of the state from which the step began: a collection that was restored since is left as it
    is. Everything raises Gone and Unavailable.
    """

    def __init__(self, redis: Redis, keys: Keys) -> None:
        self._redis = redis
        self._keys = keys

    async def begin(self, collection_id: str, epoch: int, layout: Layout, following: Layout) -> Layout | None:
        """Names the layout to be built after `layout`; the one that is being built now."""
        match await self._run(collection_id, layout, following, "begin", epoch, layout.encode(), following.encode()):
            case [b"OK", begun]:
                return Layout.decode(begun)
        return None

    async def initialize(
        self,
        collection_id: str,
        epoch: int,
        layout: Layout,
        following: Layout,
        starts: Mapping[int, int],
        pointers: Mapping[int, Pointer],
    ) -> bool:
        """Gives the new shards the `pointers` of their first manifests. `starts`: for each present shard the position
        from which its stream is in none of these manifests.
        """
        args: list[Argument] = ["initialize", epoch, following.encode(), min(starts.values()), len(starts)]
        for shard, start in starts.items():
            args += [shard, start]
        for shard, pointer in pointers.items():
            args += [shard, pointer.encode()]
        return await self._run(collection_id, layout, following, *args) == [b"OK"]

    async def copy(self, collection_id: str, epoch: int, routing: Routing, reach: int, batches: CopiedBatches) -> bool:
        """Adds to the new streams what the log has at the positions [routing.copied, reach)."""
        return await self._extend("copy", collection_id, epoch, routing, reach, batches)

    async def switch(self, collection_id: str, epoch: int, routing: Routing, head: int, batches: CopiedBatches) -> bool:
        """Copies the rest and makes the next layout the present one, if the collection's head still is `head`."""
        return await self._extend("switch", collection_id, epoch, routing, head, batches)

    async def _extend(
        self, verb: str, collection_id: str, epoch: int, routing: Routing, reach: int, batches: CopiedBatches
    ) -> bool:
        if routing.next is None or routing.copied is None:
            raise ValueError("nothing is being built")
        args: list[Argument] = [verb, epoch, routing.next.encode(), routing.copied, reach]
        for shard, entries in batches.items():
            for entry in entries:
                encoded = entry.encoded
                args += [shard, entry_id(entry.first + encoded.offset), entry.first, entry.end, int(entry.last)]
                args += [encoded.count, entry.time_ms, encoded.checksum, encoded.payload]
        return await self._run(collection_id, routing.layout, routing.next, *args) == [b"OK"]

    async def note_built(self, collection_id: str, epoch: int, layout: Layout, following: Layout, built: int) -> None:
        """Notes how many of the new shards have segments of their own, for `progress`."""
        await self._run(collection_id, layout, following, "built", epoch, following.encode(), built)

    async def stop_appends(self, collection_id: str, epoch: int, layout: Layout, following: Layout) -> int | None:
        """Makes appends wait, for `APPEND_STOP_MS` at most; returns the head at which they do."""
        match await self._run(collection_id, layout, following, "stop", epoch, following.encode(), APPEND_STOP_MS):
            case [b"OK", head]:
                return int(head)
        return None

    async def progress(self, collection_id: str) -> str | None:
        """A line for operators: from how many shards to how many, and how many are built; None when nothing is being
        built.
        """
        state = self._keys.state(collection_id)
        call = ("HMGET", state, "layout", "next", "built")
        layout, following, built = await retry_idempotent(lambda: command(self._redis, *call), writes=False)
        if following is None:
            return None
        return f"{Layout.decode(layout).count} -> {Layout.decode(following).count} shards, {int(built or 0)} built"

    async def abandon(self, collection_id: str, layout: Layout, following: Layout) -> None:
        """Forgets the layout that is being built, in whatever epoch."""
        await self._run(collection_id, layout, following, "abandon", "")

    async def restore(
        self,
        collection_id: str,
        layout: Layout,
        epoch: int,
        position: int,
        pointers: Sequence[Pointer | None],
        dimension: int | None,
    ) -> None:
        """Gives a collection that is restored in this epoch the manifests that `pointers` say, one per shard of
        `layout`, None where there is none; they are of one moment, at `position`. Whatever its streams hold is dropped.
        Its vectors have the `dimension` of those in the manifests from now on, None: the manifests do not say any.
        """
        call = ("HMGET", self._keys.state(collection_id), "layout", "next")
        present, following = await retry_idempotent(lambda: command(self._redis, *call), writes=False)
        if present is None:
            raise Gone(f"collection {collection_id} has no state")
        if following is not None:
            await self.abandon(collection_id, Layout.decode(present), Layout.decode(following))
        args: list[Argument] = ["restore", "", layout.encode(), epoch, position]
        args.append("" if dimension is None else dimension)
        for shard, pointer in zip(layout.numbers, pointers, strict=True):
            args += [shard, pointer.encode() if pointer else ""]
        await self._run(collection_id, Layout.decode(present), layout, *args)

    async def _run(self, collection_id: str, layout: Layout, following: Layout, *args: Argument) -> list[Any]:
        """The reply of rebuild.lua, as its header says. `layout` is the present one."""
        shards = (*following.numbers, *layout.numbers)
        keys = [self._keys.state(collection_id), *(self._keys.log(collection_id, shard) for shard in shards)]
        reply: list[Any] = await REBUILD.run(self._redis, keys, args)
        if reply == [b"GONE"]:
            raise Gone(f"collection {collection_id} was deleted")
        return reply
