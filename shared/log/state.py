"""The state of a shard and the entries of its stream, as values, and how they are read from what Redis stores."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import orjson

from shared.cluster.placement import Layout
from shared.errors import Corrupt
from shared.log.required import is_whole

FIRST_ID: Final = "0-0"
"""`previous` of a stream's first entry, and the id behind which a reader begins that has no manifest."""


@dataclass(frozen=True, slots=True)
class Pointer:
    """A committed manifest: its version, the hash of its bytes, the position it covers (exclusive)."""

    version: int
    hash: str
    covers: int

    def encode(self) -> bytes:
        """The stored form. Two pointers are equal exactly when these bytes are: compare-and-set compares them."""
        return orjson.dumps({"version": self.version, "hash": self.hash, "covers": self.covers})

    @classmethod
    def decode(cls, data: bytes) -> Pointer:
        """Raises one of UNREADABLE when these bytes are no pointer."""
        fields = orjson.loads(data)
        return cls(int(fields["version"]), str(fields["hash"]), int(fields["covers"]))


@dataclass(frozen=True, slots=True)
class Routing:
    """The shards that a collection has now, and those that it is going to have (docs/design/2026-11-21-rebuild.md).

    `next` is the layout that is being built. `copied` is the position up to which (exclusive) the streams of its shards
    have everything, None until they have a beginning. `wanted` is the number of shards that was asked for and that no
    rebuild has begun to make; 0: none.
    """

    layout: Layout
    next: Layout | None = None
    copied: int | None = None
    wanted: int = 0

    @property
    def unfinished(self) -> bool:
        """Whether there is a rebuild to begin or to go on with."""
        return self.next is not None or self.wanted > self.layout.count


@dataclass(frozen=True, slots=True)
class ShardState:
    """The state of a shard: its part of the state hash, as of the moment of the read.

    `head` is the collection's next position. `tail` is the id of the newest entry that the stream ever had.
    `generation` grows with every change of the catalog row. `fixed` is what never changes of the collection. The
    backlogs count the operations and payload bytes that the stream still holds.
    """

    head: int
    tail: str
    dimension: int | None
    generation: int
    deleted: bool
    pointer: Pointer | None
    fixed: dict[str, Any]
    ops_backlog: int
    bytes_backlog: int
    trimmed: int
    """Position below which the stream was trimmed."""
    routing: Routing
    number: int
    kept_from: int | None
    """Position from which the stream must be kept, whatever is compacted: a rebuild has still to copy it."""
    chain: str = ""
    """`chain` of the newest entry that the stream ever had; "" before the first one that has it."""
    floor: int = 0
    """Where the head was raised to after the last restart of Redis."""
    epoch: int = 0
    """The epoch of the collection's last restoration; 0: none yet. What was begun in another one changes nothing."""
    cut: int | None = None
    """Position beyond which no compaction goes; None while the collection has one shard, or no cut yet."""
    below_cut: int = 0
    """Position of the newest entry that the stream had when the cut was set, 0: none."""
    torn: bool = False
    """Whether some of the fields that are written together are missing: newest entry, operations, bytes, chain; up to
    where the stream was trimmed, where it is known how much was.
    """

    @property
    def serves(self) -> bool:
        """Whether the shard is one of the collection's shards now."""
        return self.number in self.routing.layout

    @property
    def building(self) -> bool:
        """Whether the shard is one of those that a rebuild is making."""
        return self.routing.next is not None and self.number in self.routing.next

    @property
    def reach(self) -> int:
        """Position up to which (exclusive) the stream has everything: the head, or, while the shard is being built,
        what was copied.
        """
        return self.head if not self.building or self.routing.copied is None else self.routing.copied

    @property
    def compactable_to(self) -> int:
        """Position up to which (exclusive) the shard may be compacted now: what the stream has, or the cut."""
        return self.reach if self.cut is None or self.building else min(self.reach, self.cut)

    @property
    def lost_pointer(self) -> bool:
        """Whether the stream was trimmed beyond what the pointer covers: only a committed manifest allows trimming, so
        Redis has lost its pointer.
        """
        return self.trimmed > (self.pointer.covers if self.pointer else 1)

    @property
    def lost_part(self) -> bool:
        """Whether the state has lost what it says of the shard, so that nothing of it is to be read or written until
        that is restored. Of a shard that is being built its rebuild takes care.
        """
        return self.serves and (self.torn or self.lost_pointer)

    @property
    def uncompacted(self) -> bool:
        """Whether the stream has entries that no committed manifest covers."""
        return position_of(self.tail) >= (self.pointer.covers if self.pointer else 1)

    @property
    def compactable(self) -> bool:
        """Whether it has such entries that may be compacted now."""
        if self.cut is None or self.building:
            return self.uncompacted
        return self.below_cut >= (self.pointer.covers if self.pointer else 1)

    @property
    def trimmable(self) -> bool:
        """Whether a manifest was committed since the last trim that lets the stream be trimmed further."""
        if self.pointer is None:
            return False
        covers = self.pointer.covers if self.kept_from is None else min(self.pointer.covers, self.kept_from)
        return covers > self.trimmed


@dataclass(frozen=True, slots=True)
class Entry:
    """An entry of a shard's stream. [first, end) are the positions of the whole append; a row's position is `first`
    plus its `offset`. `last` marks the append's last entry in this stream: an append is applied only with it.
    `previous` is the id of the entry before, `count` the number of operations.

    What follows the payload is empty in an entry of version 0.1.0.
    """

    id: str
    previous: str
    first: int
    end: int
    last: bool
    count: int
    payload: bytes
    totals: str = ""
    """Operations and payload bytes that were added to the stream in total, this entry included, as they are stored."""
    time_ms: int = 0
    """When the append was made, in ms since the epoch, by the log server's clock."""
    checksum: str = ""
    """`payload_checksum` of the payload."""
    chain: str = ""
    """SHA-1 of everything else, in hex; `before_chain` is that of the entry before."""
    before_chain: str = ""
    request_id: str = ""
    """Request id of the append; empty in a copy."""


@dataclass(frozen=True, slots=True)
class ShardRead:
    """A shard's state and entries as of one moment. Not `complete` when a limit ended the read: more entries follow.
    Two marks are equal only when the states are.
    """

    state: ShardState
    entries: list[Entry]
    complete: bool
    mark: bytes = b""

    def without_entries(self) -> ShardRead:
        """The state of this read alone, for a caller that has the entries."""
        return ShardRead(self.state, [], self.complete, self.mark)


def position_of(entry_id: str) -> int:
    """Position of an entry's first operation; 0 for FIRST_ID."""
    return int(entry_id.partition("-")[0])


def entry_id(position: int) -> str:
    """Id of the entry whose first operation has this position."""
    return f"{position}-0"


def after_position(covers: int) -> str:
    """The id behind which to read on after a manifest that covers everything below `covers`."""
    return entry_id(covers - 1)


@functools.cache
def state_fields(shard: int) -> tuple[str, ...]:
    """Fields of the state hash that `parse_state` needs, in its order."""
    of_collection = (
        "head",
        "dim",
        "gen",
        "deleted",
        "config",
        "layout",
        "next",
        "copied",
        "wanted",
        "epoch",
        "cut",
        "floor",
    )
    of_shard = ("copied", "tail", "m", "ops", "bytes", "trimmed_ops", "trimmed_bytes", "trimmed", "chain", "cut")
    return (*of_collection, *(f"{name}:{shard}" for name in of_shard))


def has_head(values: Sequence[bytes | None]) -> bool:
    """Whether a state with these values of `state_fields` has all that `parse_state` needs, and it can be read."""
    head, dimension, generation, _, config, layout, _, _, _, epoch, _, floor, *_ = values
    required = {"head": head, "gen": generation, "config": config, "layout": layout}
    return is_whole({**required, "dim": dimension, "epoch": epoch, "floor": floor})


def parse_state(shard: int, values: Sequence[bytes | None]) -> ShardState:
    """A shard's state, from the values of `state_fields(shard)`. Raises Corrupt when the state has no head."""
    head, dimension, generation, deleted, config, layout, following, copied, wanted, epoch, *others = values
    cut, floor, *of_shard = others
    kept_from, tail, pointer, ops, size, trimmed_ops, trimmed_size, trimmed, chain, below_cut = of_shard
    if head is None or generation is None or config is None or layout is None:
        raise Corrupt("the state of a collection has no head")
    return ShardState(
        head=int(head),
        tail=FIRST_ID if tail is None else tail.decode(),
        dimension=None if dimension is None else int(dimension),
        generation=int(generation),
        deleted=deleted is not None,
        pointer=None if pointer is None else _pointer(pointer),
        fixed=_fixed(config),
        ops_backlog=int(ops or 0) - int(trimmed_ops or 0),
        bytes_backlog=int(size or 0) - int(trimmed_size or 0),
        trimmed=int(trimmed or 0),
        routing=routing_of(layout, following, copied, wanted),
        number=shard,
        kept_from=None if kept_from is None else int(kept_from),
        chain="" if chain is None else chain.decode(),
        epoch=int(epoch or 0),
        cut=None if cut is None else int(cut),
        below_cut=int(below_cut or 0),
        floor=int(floor or 0),
        torn=len({tail is None, ops is None, size is None}) > 1
        or (tail is None and chain is not None)
        or (trimmed is None and trimmed_ops is not None),
    )


# The same few values are read over and over, once per currency check, and are parsed once. No reader changes a `fixed`.


@functools.lru_cache(maxsize=1024)
def _pointer(data: bytes) -> Pointer:
    return Pointer.decode(data)


@functools.lru_cache(maxsize=1024)
def routing_of(layout: bytes, following: bytes | None, copied: bytes | None, wanted: bytes | None) -> Routing:
    """The routing, from the values of the fields layout, next, copied and wanted of the state hash."""
    return Routing(
        Layout.decode(layout),
        None if following is None else Layout.decode(following),
        None if copied is None else int(copied),
        int(wanted or 0),
    )


@functools.lru_cache(maxsize=1024)
def _fixed(data: bytes) -> dict[str, Any]:
    fixed: dict[str, Any] = orjson.loads(data)
    return fixed
