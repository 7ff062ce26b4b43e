"""Puts appends back, at their own positions, that a Redis has lost which is not open yet: what
`logservice.healing.put_back` writes with.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

from redis.asyncio import Redis

from shared import limits
from shared.cluster.placement import Layout
from shared.errors import Unavailable
from shared.log.lifecycle import Lifecycle
from shared.log.required import is_whole
from shared.process.telemetry import get_logger
from shared.redis.client import command, retry_idempotent
from shared.redis.keys import Keys
from shared.redis.scripts import Argument, Script, packed

HEAL: Final = Script("shared.log", "heal", uses=["entries"])

log = get_logger(__name__)


class PutBackEntry(NamedTuple):
    """An entry of an append that is put back: its shard, its stream id, its operations, and its payload with the
    checksum of that.
    """

    shard: int
    id: str
    operations: int
    checksum: str
    payload: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class PutBackAppend:
    """A whole append at the positions [first, end). `entries` stand by shard, each shard's in their order. `request_id`
    is "" when it is not known, `epoch` that of the collection when the log service began to heal it, `dimension` None
    when there are no embeddings; `pairs` are the (metadata key, value type) pairs that it brought along, as they are
    kept.
    """

    collection_id: str
    first: int
    end: int
    time_ms: int
    request_id: str
    epoch: int
    dimension: int | None
    pairs: Sequence[str]
    entries: Sequence[PutBackEntry]


class Heal:
    """Writes to the logs of a Redis that is not open. Everything raises Unavailable."""

    def __init__(self, redis: Redis, keys: Keys) -> None:
        self._redis = redis
        self._keys = keys
        self._lifecycle = Lifecycle(redis, keys)

    async def layout(self, collection_id: str) -> Layout | None:
        """The collection's present shards; None when Redis does not know them any more."""
        call = ("HGET", self._keys.state(collection_id), "layout")
        layout = await retry_idempotent(lambda: command(self._redis, *call), writes=False)
        return Layout.decode(layout) if is_whole({"layout": layout}) else None

    async def epochs(self, collection_ids: Iterable[str]) -> dict[str, int]:
        """The epoch of each collection; 0 where Redis does not know it."""
        found: dict[str, int] = {}
        for collection_id in collection_ids:
            call = ("HGET", self._keys.state(collection_id), "epoch")
            epoch = await retry_idempotent(lambda call=call: command(self._redis, *call), writes=False)  # type: ignore[misc] # no type for a lambda with a default
            found[collection_id] = int(epoch or 0) if is_whole({"epoch": epoch}) else 0
        return found

    async def fill(self, collection_id: str, layout: Layout) -> None:
        """Gives the state what it lost alone of what its streams say: what is put back continues their chains."""
        filled = (await self._lifecycle.rejoin(collection_id, layout)).filled
        if filled:
            log.error("stream_fields_restored", collection=collection_id, fields=filled)

    async def put_back(self, append: PutBackAppend) -> bool:
        """Puts the append behind the end of the log, unless that is beyond its positions already. False when the
        collection is gone, or has other shards. Raises Unavailable, too, when it was restored since.
        """
        names, collection_id = self._keys, append.collection_id
        shards = dict.fromkeys(entry.shard for entry in append.entries)
        keys = [
            names.state(collection_id),
            names.request(collection_id, append.request_id),
            names.metadata_keys(collection_id),
            *(names.log(collection_id, shard) for shard in shards),
        ]
        args: list[Argument] = [
            limits.REQUEST_ID_TTL_S, append.first, append.end, append.time_ms, append.request_id,
            "" if append.dimension is None else append.dimension, packed(append.pairs) if append.pairs else "",
            append.epoch,
        ]  # fmt: skip
        args += [part for entry in append.entries for part in entry]
        outcome = await HEAL.run(self._redis, keys, args)
        if outcome == b"EPOCH":
            raise Unavailable("Another log service has restored the cluster")
        return outcome in (b"OK", b"THERE")
