"""The cuts of collections with several shards, in Redis: positions at which the manifests of all shards meet.

While a round lasts, no shard is compacted beyond the cut; when all have been compacted up to it, the log service writes
the root that names their manifests (`shared.manifest.roots`), and the next round sets the next cut, to the head.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from redis.asyncio import Redis

from shared.cluster.placement import Layout
from shared.log.required import UNREADABLE
from shared.log.state import Pointer, position_of
from shared.process.telemetry import get_logger
from shared.records.model import FIRST_POSITION
from shared.redis.client import retry_idempotent
from shared.redis.keys import Keys
from shared.redis.scripts import PIPELINE_MAX, Script

log = get_logger(__name__)

CUTS: Final = Script("shared.log", "cuts", uses=["cut"])

_OF_COLLECTION: Final = ("head", "deleted", "layout", "cut", "root", "epoch")
_OF_SHARD: Final = ("m", "tail", "cut")


@dataclass(frozen=True, slots=True)
class ShardProgress:
    """How far a shard is compacted. `tail` is the position of the newest entry that its stream ever had, `below_cut`
    that of the newest one below the cut; 0 where there is none.
    """

    number: int
    pointer: Pointer | None
    tail: int
    below_cut: int

    @property
    def covers(self) -> int:
        """The position, exclusive, up to which it is compacted; 0 without a manifest."""
        return self.pointer.covers if self.pointer else 0

    @property
    def behind(self) -> bool:
        """Whether it has operations below the cut that are not compacted."""
        return self.below_cut > 0 and self.below_cut >= self.covers

    @property
    def uncompacted(self) -> bool:
        """Whether it has operations, on whichever side of the cut, that are not compacted."""
        return self.tail > 0 and self.tail >= self.covers


@dataclass(frozen=True, slots=True)
class CutState:
    """A collection's round as of one moment. `cut` is None in a collection that had none yet; `rooted` is the cut of
    which a root was written last, `epoch` that of the last restoration.
    """

    collection_id: str
    epoch: int
    head: int
    layout: Layout
    cut: int | None
    rooted: int | None
    shards: tuple[ShardProgress, ...]
    torn: bool = False
    """Whether Redis has lost what a shard has to reach in this round: then nothing tells when all shards are there."""

    @property
    def pointers(self) -> list[Pointer | None]:
        """The committed manifests of the shards, in the order of the layout."""
        return [shard.pointer for shard in self.shards]


class Cuts:
    """Reads and moves the cuts. Everything raises Unavailable."""

    def __init__(self, redis: Redis, keys: Keys) -> None:
        self._redis = redis
        self._keys = keys

    async def read(self, layouts: Mapping[str, Layout]) -> dict[str, CutState]:
        """The rounds of these collections, by id. `layouts` are their layouts as the caller knows them; a collection
        that was deleted, or has another one by now, is left out, and so is one whose state cannot be read.
        """
        found: dict[str, CutState] = {}
        ids = list(layouts)
        for start in range(0, len(ids), PIPELINE_MAX):
            batch = ids[start : start + PIPELINE_MAX]
            rows = await retry_idempotent(functools.partial(self._rows, batch, layouts), writes=False)
            for collection_id, values in zip(batch, rows, strict=True):
                try:
                    state = _parse(collection_id, layouts[collection_id], values)
                except UNREADABLE as error:  # its readers report it
                    log.error("state_unreadable", collection=collection_id, error=repr(error))  # noqa: TRY400 (no stack: data is at fault)
                    continue
                if state is not None:
                    found[collection_id] = state
        return found

    async def _rows(self, ids: Sequence[str], layouts: Mapping[str, Layout]) -> list[list[bytes | None]]:
        async with self._redis.pipeline(transaction=False) as pipeline:
            for collection_id in ids:
                of_shards = [f"{name}:{shard}" for shard in layouts[collection_id].numbers for name in _OF_SHARD]
                pipeline.hmget(self._keys.state(collection_id), [*_OF_COLLECTION, *of_shards])
            rows: list[list[bytes | None]] = await pipeline.execute()
            return rows

    async def begin(self, state: CutState) -> int | None:
        """Begins the round after `state`: sets the cut to the head. The cut; None when the collection is gone, or has
        moved on meanwhile.
        """
        return await self._run("begin", state)

    async def note_root(self, state: CutState) -> bool:
        """Notes that the root at the cut of `state` is in the bucket; False when the collection has moved on."""
        return await self._run("rooted", state) is not None

    async def _run(self, verb: str, state: CutState) -> int | None:
        expected = "" if state.cut is None else state.cut
        key = self._keys.state(state.collection_id)
        reply: list[Any] = await CUTS.run(self._redis, [key], [verb, state.layout.encode(), expected, state.epoch])
        match reply:
            case [b"OK", cut]:
                return int(cut)
        return None


def _parse(collection_id: str, layout: Layout, values: Sequence[bytes | None]) -> CutState | None:
    (head, deleted, present, cut, rooted, epoch), of_shards = (
        values[: len(_OF_COLLECTION)],
        values[len(_OF_COLLECTION) :],
    )
    if head is None or deleted is not None or present is None or Layout.decode(present) != layout:
        return None
    width = len(_OF_SHARD)
    shards = tuple(
        _shard(number, *of_shards[place * width : (place + 1) * width]) for place, number in enumerate(layout.numbers)
    )
    below_cut = of_shards[width - 1 :: width]
    # A restoration, and a creation, set a cut at which all shards are, and nothing more.
    begun = cut is not None and int(cut) > FIRST_POSITION and cut != rooted
    torn = begun and any(value is None for value in below_cut)
    return CutState(collection_id, int(epoch or 0), int(head), layout, _number(cut), _number(rooted), shards, torn)


def _shard(number: int, pointer: bytes | None, tail: bytes | None, below_cut: bytes | None) -> ShardProgress:
    return ShardProgress(
        number,
        None if pointer is None else Pointer.decode(pointer),
        0 if tail is None else position_of(tail.decode()),
        int(below_cut or 0),
    )


def _number(value: bytes | None) -> int | None:
    return None if value is None else int(value)
