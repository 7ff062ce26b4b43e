"""The log of a fork, filled before the catalog knows it (docs/design/2026-11-21-fork.md)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final

import orjson
from redis.asyncio import Redis

from shared.errors import Gone
from shared.log.batch import payload_checksum
from shared.log.state import FIRST_ID, Entry, Pointer
from shared.redis.keys import Keys
from shared.redis.scripts import Argument, Script, packed

FORK: Final = Script("shared.log", "fork", uses=["entries"])


class Forks:
    """Steps that fill a fork's log; each may be repeated after a lost answer. `epoch` is that of the origin when the
    fork began. Everything raises Gone when the fork was given up as an orphan, Backoff when the server is full, and
    Unavailable.
    """

    def __init__(self, redis: Redis, keys: Keys) -> None:
        self._redis = redis
        self._keys = keys

    async def copy(self, fork_id: str, epoch: int, shard: int, entries: Sequence[Entry], after: str = FIRST_ID) -> bool:
        """Adds entries of the origin, at least one, to the fork's stream behind the entry with the id `after`. False
        when the stream does not end there.
        """
        args: list[Argument] = ["copy", epoch, shard, after, entries[-1].id]
        for entry in entries:
            args += [entry.id, entry.first, entry.end, int(entry.last), entry.count, entry.time_ms]
            args += [entry.checksum or payload_checksum(entry.payload), entry.payload]
        return await self._run(fork_id, self._keys.log(fork_id, shard), args)

    async def open(
        self,
        fork_id: str,
        epoch: int,
        *,
        head: int,
        dimension: int | None,
        pointers: Sequence[Pointer | None],
        ops_before: int,
        pairs: Iterable[tuple[str, str]],
    ) -> None:
        """Gives the fork what its origin had at the position `head`. `pointers` are those of its shards, from shard 0
        on; `ops_before` counts the operations that are in no copied entry; `pairs` are the origin's (metadata key,
        value type) pairs.
        """
        encoded_pairs = packed([orjson.dumps(pair).decode() for pair in pairs])
        fields: list[Argument] = ["head", head, "floor", head, "ops_before", ops_before]
        fields += [] if dimension is None else ["dim", dimension]
        for shard, pointer in enumerate(pointers):
            if pointer is not None:
                fields += [f"m:{shard}", pointer.encode(), f"trimmed:{shard}", pointer.covers]
        await self._run(fork_id, self._keys.metadata_keys(fork_id), ["open", epoch, encoded_pairs, *fields])

    async def _run(self, fork_id: str, key: str, args: Sequence[Argument]) -> bool:
        outcome = await FORK.run(self._redis, [self._keys.state(fork_id), key], args)
        if outcome == b"GONE":
            raise Gone(f"the fork {fork_id} was given up")
        return bool(outcome == b"OK")
