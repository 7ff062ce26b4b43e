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
from shared.log.state import Pointer, Routing
from shared.redis.client import command, persist
from shared.redis.keys import Keys
from shared.redis.scripts import Argument, Script

REBUILD = Script("shared.log", "rebuild")

FENCE_MS: Final = 1000
"""Appends wait at most so long for whoever is switching; it takes milliseconds unless it dies."""


@dataclass(frozen=True, slots=True)
class CopiedEntry:
    """An entry for a new stream: a part of the append at positions [first, end)."""

    first: int
    end: int
    last: bool
    encoded: EncodedEntry


Parts = Mapping[int, Sequence[CopiedEntry]]


class Rebuilds:
    """False or None says that somebody else was faster, and that the state is to be read again. Everything raises Gone
    and Unavailable.
    """

    def __init__(self, redis: Redis, keys: Keys) -> None:
        self._redis = redis
        self._keys = keys

    async def begin(self, collection_id: str, layout: Layout, following: Layout) -> Layout | None:
        """Names the layout to be built after `layout`; the one that is being built now."""
        answer = await self._run(collection_id, layout, following, "begin", layout.encode(), following.encode())
        return Layout.decode(answer[1]) if answer[0] == b"OK" else None

    async def seed(
        self,
        collection_id: str,
        layout: Layout,
        following: Layout,
        starts: Mapping[int, int],
        pointers: Mapping[int, Pointer],
    ) -> bool:
        """Gives the new shards their first manifests. `starts` says from where on each present shard's stream is not in
        them.
        """
        args: list[Argument] = ["seed", following.encode(), min(starts.values()), len(starts)]
        for shard, start in starts.items():
            args += [shard, start]
        for shard, pointer in pointers.items():
            args += [shard, pointer.encode()]
        outcome, *_ = await self._run(collection_id, layout, following, *args)
        return bool(outcome == b"OK")

    async def copy(self, collection_id: str, routing: Routing, reach: int, parts: Parts) -> bool:
        """Adds to the new streams what the log has from `routing.copied` to `reach`."""
        return await self._extend("copy", collection_id, routing, reach, parts)

    async def switch(self, collection_id: str, routing: Routing, head: int, parts: Parts) -> bool:
        """Copies the rest and makes the next layout the present one, if the collection's head still is `head`."""
        return await self._extend("switch", collection_id, routing, head, parts)

    async def _extend(self, verb: str, collection_id: str, routing: Routing, reach: int, parts: Parts) -> bool:
        if routing.next is None or routing.copied is None:
            raise ValueError("nothing is being built")
        args: list[Argument] = [verb, routing.next.encode(), routing.copied, reach]
        for shard, entries in parts.items():
            args += [shard, len(entries)]
            for entry in entries:
                encoded = entry.encoded
                args += [entry.first + encoded.offset, entry.first, entry.end, int(entry.last)]
                args += [encoded.count, encoded.payload]
        outcome, *_ = await self._run(collection_id, routing.layout, routing.next, *args)
        return bool(outcome == b"OK")

    async def note_built(self, collection_id: str, layout: Layout, following: Layout, built: int) -> None:
        """How many of the new shards have segments of their own; for people to see."""
        await self._run(collection_id, layout, following, "built", following.encode(), built)

    async def fence(self, collection_id: str, layout: Layout, following: Layout) -> int | None:
        """Makes appends wait, for `FENCE_MS` at most; the head at which they do."""
        answer = await self._run(collection_id, layout, following, "fence", following.encode(), FENCE_MS)
        return int(answer[1]) if answer[0] == b"OK" else None

    async def progress(self, collection_id: str) -> str | None:
        """For people: from how many shards to how many, and how many are built; None when nothing is being built."""
        state = self._keys.state(collection_id)
        fields = await persist(lambda: command(self._redis, "HMGET", state, "layout", "next", "built"), writes=False)
        if fields[1] is None:
            return None
        present, following = Layout.decode(fields[0]), Layout.decode(fields[1])
        return f"{present.count} -> {following.count} shards, {int(fields[2] or 0)} built"

    async def abandon(self, collection_id: str, layout: Layout, following: Layout) -> None:
        """Forgets the layout that is being built."""
        await self._run(collection_id, layout, following, "abandon")

    async def force(
        self, collection_id: str, present: Layout, layout: Layout, pointers: Sequence[Pointer | None]
    ) -> None:
        """Makes `layout` the present one with these manifests; for a Redis that went back behind a switch."""
        args: list[Argument] = ["force", layout.encode()]
        for shard, pointer in zip(layout.numbers, pointers, strict=True):
            args += [shard, pointer.encode() if pointer else ""]
        await self._run(collection_id, present, layout, *args)

    async def _run(self, collection_id: str, layout: Layout, following: Layout, *args: Argument) -> Any:
        streams = [self._keys.log(collection_id, shard) for one in (following, layout) for shard in one.numbers]
        answer = await REBUILD.run(self._redis, [self._keys.state(collection_id), *streams], args)
        if answer[0] == b"GONE":
            raise Gone(f"collection {collection_id} was deleted")
        return answer
