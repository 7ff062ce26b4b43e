"""The log that the bucket has behind the manifests: what writes of the durability class `bucket` left there.

A restoration that begins with manifests goes on with this log, up to the furthest position that all shards of the
collection reach: a state of one moment, and a later one. The manifests are the newest of each shard, which need not
meet anywhere, as long as none covers more than that position; or those that were chosen without the log.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import NamedTuple

from logservice.restoring.choice import Choice, StoredState, Taken
from logservice.restoring.evidence import Evidence
from shared.history.bucket_tail import BucketTail, read_bucket_tail
from shared.history.past_manifests import PastManifests
from shared.log.batch import decode_batch
from shared.log.state import Entry, Pointer
from shared.objects.port import ObjectStore
from shared.process.concurrency import together
from shared.process.telemetry import get_logger
from shared.records.model import FIRST_POSITION

log = get_logger(__name__)

Entries = dict[int, list[Entry]]
"""By shard, the entries of its log."""


@dataclass(frozen=True, slots=True)
class Extended:
    """The state that a collection is restored to: the choice, with the log to put behind its manifests."""

    choice: Choice
    stored: StoredState
    entries: Entries = field(default_factory=dict)


class _Base(NamedTuple):
    """A manifest of a shard, or nothing, and the log that the bucket has behind it."""

    shard: int
    pointer: Pointer | None
    tail: BucketTail

    @property
    def covers(self) -> int:
        return self.pointer.covers if self.pointer else FIRST_POSITION


class BucketTails:
    """Finds the log behind manifests. Raises Unavailable."""

    def __init__(self, objects: ObjectStore, evidence: Evidence) -> None:
        self._objects = objects
        self._evidence = evidence
        self._past = PastManifests(objects)

    async def extend(self, collection_id: str, choice: Choice, stored: StoredState) -> Extended:
        """The choice itself, or a later state: manifests in the bucket with the log there behind them."""
        best, reached = Extended(choice, stored), _reach_of(choice)
        bases = [stored.latest]
        if stored.logged is not None:
            bases.append(stored.logged.pointers)
        if choice.taken is not Taken.LOG:
            bases.append(choice.pointers)
        for pointers in bases:
            found = await self._behind(collection_id, stored, pointers, reached)
            if found is not None:
                best, reached = found, found.choice.covered[0]
        return best

    async def _behind(
        self, collection_id: str, stored: StoredState, pointers: Sequence[Pointer | None], at_least: int
    ) -> Extended | None:
        """The state of these manifests and the log behind them, if it is one that reaches further than `at_least`.

        Where a shard was compacted beyond the others' log, its manifest of before takes the newer one's place.
        """
        if len(pointers) != stored.layout.count:
            return None
        shards = stored.layout.numbers
        bases = await together(
            [self._base(collection_id, shard, pointer) for shard, pointer in zip(shards, pointers, strict=True)]
        )
        reach = min(base.tail.reach for base in bases)
        if reach <= at_least:
            return None
        bases = await together([self._not_beyond(collection_id, base, reach) for base in bases])
        entries = {base.shard: base.tail.up_to(reach).entries for base in bases}
        if any(base.covers > reach or base.tail.reach < reach for base in bases) or not any(entries.values()):
            return None
        for base in bases:
            pointer = base.pointer
            if pointer is not None and not await self._evidence.is_complete(collection_id, base.shard, pointer):
                return None
        log.info("log_found_in_bucket", collection=collection_id, reach=reach, before=at_least)
        position = min(base.covers for base in bases)
        choice = Choice(Taken.TAIL, stored.layout, [base.pointer for base in bases], [reach] * len(bases), position)
        damaged = {base.tail.damage.name: base.tail.damage.message for base in bases if base.tail.damage is not None}
        dimension = stored.dimension or _dimension_of([base.tail for base in bases])
        found = replace(stored, dimension=dimension, damaged={**stored.damaged, **damaged})
        return Extended(choice, found, entries)

    async def _base(self, collection_id: str, shard: int, pointer: Pointer | None) -> _Base:
        covers = pointer.covers if pointer else FIRST_POSITION
        return _Base(shard, pointer, await read_bucket_tail(self._objects, collection_id, shard, covers))

    async def _not_beyond(self, collection_id: str, base: _Base, reach: int) -> _Base:
        """The manifest itself, or the newest one before it that covers no more than `reach`."""
        if base.covers <= reach:
            return base
        past = await self._past.at(collection_id, base.shard, reach, base.pointer)
        return await self._base(collection_id, base.shard, past.pointer if past else None)


def _reach_of(choice: Choice) -> int:
    """The position up to which the state that was chosen has everything. One that is not of one moment is taken only
    when nothing else is there.
    """
    return min(choice.covered)


def _dimension_of(tails: Sequence[BucketTail]) -> int | None:
    """The dimension of the vectors in the log, None when it has none."""
    for tail in tails:
        for entry in tail.entries:
            embedding = decode_batch(entry.payload).schema.get_field_index("embedding")
            if embedding >= 0:
                width: int = decode_batch(entry.payload).schema.field(embedding).type.list_size
                return width
    return None
