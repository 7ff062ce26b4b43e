"""The first half of a compaction: the log after a manifest, applied to its segments.

1. Read the shard's stream page by page, after the position that the manifest covers. Every page comes with the state of
   the same moment: when the pointer is no longer the one that this started from, or the epoch another one, the work is
   somebody else's (Superseded).
2. Prove that nothing is missing: every entry names the one before it; the first one names an entry that the manifest
   covers; the last one is the stream's newest. A gap is Corrupt: an acknowledged write would be lost by going on.
3. Apply an append only when its last entry is here, and none behind an entry that is damaged or missing.
4. Stop at the end of the log, at the collection's cut (`shared.log.cuts`), or behind the append that reaches the limit
   of bytes.

At the end of the log everything below the collection's head is covered (of a shard that is being built: below what was
copied), and at the cut everything below the cut, because the state is of the same moment as the last page.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final, Protocol

import pyarrow as pa
from pyroaring import BitMap

from compactor.cancellation import in_thread
from shared.errors import Corrupt, Gone, PolychromeError
from shared.log.decoding import decode_entries
from shared.log.state import Entry, ShardRead, ShardState, after_position, position_of
from shared.log.verification import DamagedEntry
from shared.memtable.memtable import BaseRecords, Memtable
from shared.records.digest import record_digests
from shared.records.model import FIRST_POSITION, record_schema

PAGE_BYTES: Final = 16 * 1024 * 1024


class Superseded(PolychromeError):
    """Another compactor has published a manifest of the shard meanwhile: what was done for this one is void."""

    code = "superseded"


class Reader(Protocol):
    """The part of `shared.log.log.Log` that `apply_log` needs."""

    async def read(
        self, collection_id: str, shard: int, after: str = ..., bytes_max: int | None = None, *, after_chain: str = ...
    ) -> ShardRead: ...


@dataclass(frozen=True, slots=True)
class AppliedLog:
    """The log from the position that a manifest covers up to `covers` (exclusive), as a difference to that manifest's
    segments.

    `tail` has the live records that the log wrote (`record_schema`, digests included), ascending by `inserted`;
    `deleted` the rows of each segment, by its number, that the log deleted or replaced. `complete`: the log had no
    more, or no more below the cut. `dimension` is None as long as the collection has none. `entries` counts those that
    were applied.
    """

    covers: int
    complete: bool
    operations: int
    dimension: int | None
    tail: pa.Table
    deleted: dict[int, BitMap]
    entries: int
    damage: DamagedEntry | None
    """The damage that ended the reading: nothing behind it was applied."""


async def apply_log(
    log: Reader,
    collection: str,
    begun: ShardState,
    base: BaseRecords,
    dimension: int | None,
    bytes_max: int,
    check: Callable[[], None],
    *,
    beyond_cut: bool = False,
) -> AppliedLog:
    """Applies a shard's log after the manifest of the state `begun` to that manifest's records, `base`; at least one
    append, and then until `bytes_max` payload bytes are taken. `check` is called before every page, and what it raises
    ends the work. `beyond_cut`: does not stop at the cut; for readers, never for what is published. What comes before a
    damaged entry is applied; DamagedEntry is raised when that is nothing. Raises Superseded, Gone, Corrupt,
    Unavailable.
    """
    shard, pointer = begun.number, begun.pointer
    covered = pointer.covers if pointer else FIRST_POSITION
    memtable = Memtable(base, dimension)
    after, waiting = after_position(covered), list[Entry]()
    covers, operations, taken, complete = covered, 0, 0, False
    first_page, entries, chain, damage = True, 0, "", None
    while not complete and damage is None and (taken < bytes_max or waiting):
        check()
        try:
            page = await log.read(collection, shard, after, PAGE_BYTES, after_chain=chain)
        except DamagedEntry as found:
            _check_state(found.state or begun, collection, begun)
            cut = found.state.compactable_to if found.state is not None and not beyond_cut else None
            if cut is None or found.first < cut or waiting:
                damage = found
            else:
                covers, complete = max(covered, cut), True
            break
        _check_state(page.state, collection, begun)
        check_chain(page, after, covered if first_page else None)
        first_page = False
        end = page.state.reach if beyond_cut else page.state.compactable_to
        below = [entry for entry in page.entries if entry.first < end]
        ready, waiting = whole_appends([*waiting, *below])
        ready, damage = await in_thread(_apply, memtable, collection, shard, ready)
        operations += sum(entry.count for entry in ready)
        taken += sum(len(entry.payload) for entry in below)
        complete = (page.complete or len(below) < len(page.entries)) and damage is None
        entries += len(ready)
        if ready:
            covers = ready[-1].end
        if page.entries:
            after, chain = page.entries[-1].id, page.entries[-1].chain
        if complete:
            if waiting:
                raise Corrupt(f"the append at {waiting[0].first} of {collection}/{shard} has no end")
            covers = max(covered, end)
    if damage is not None and not entries:
        raise damage
    tail = await in_thread(_live_table, memtable)
    deleted = {segment: BitMap(rows) for segment, rows in memtable.deleted().items() if len(rows)}
    return AppliedLog(covers, complete, operations, memtable.dimension, tail, deleted, entries, damage)


def _check_state(state: ShardState, collection: str, begun: ShardState) -> None:
    if state.deleted:
        raise Gone(f"collection {collection} was deleted")
    if not state.serves and not state.building:
        raise Superseded(f"the collection has other shards than {state.number} by now")
    if state.epoch != begun.epoch:
        raise Superseded(f"the collection was restored in epoch {state.epoch}; this began in epoch {begun.epoch}")
    if state.pointer != begun.pointer:
        raise Superseded(f"the newest manifest is {state.pointer}, not {begun.pointer}")


def check_chain(page: ShardRead, after: str, covered: int | None) -> None:
    """Raises Corrupt unless the page continues what was read up to the entry `after` (the first page: up to the
    position `covered`) and ends where the stream does. The entries of a page are chained among themselves already.
    """
    newest = page.entries[-1].id if page.entries else after
    if page.entries:
        previous = page.entries[0].previous
        joined = previous == after if covered is None else position_of(previous) < covered
        if not joined:
            raise Corrupt(f"the log has a gap: {page.entries[0].id} follows {previous}, read until {after}")
    if page.complete:
        nothing_new = covered is not None and not page.entries and position_of(page.state.tail) < covered
        if newest != page.state.tail and not nothing_new:
            raise Corrupt(f"the log has a gap: it ends at {newest}, but {page.state.tail} was written")


def whole_appends(entries: Sequence[Entry]) -> tuple[list[Entry], list[Entry]]:
    """The entries of appends that are here as a whole, and those of the append after them that is not."""
    for place in range(len(entries), 0, -1):
        if entries[place - 1].last:
            return list(entries[:place]), list(entries[place:])
    return [], list(entries)


def _apply(
    memtable: Memtable, collection: str, shard: int, entries: Sequence[Entry]
) -> tuple[list[Entry], DamagedEntry | None]:
    """Applies entries of whole appends, up to the first append with an entry that does not decode: those that were
    applied, and what is wrong with that entry.
    """
    batches, damage = decode_entries(collection, shard, entries)
    applied, _ = whole_appends(entries[: len(batches)])
    for entry, batch in zip(applied, batches[: len(applied)], strict=True):
        memtable.apply(batch, entry.first, entry.end)
    return applied, damage


def _live_table(memtable: Memtable) -> pa.Table:
    """The live records with their digests, in the columns of `record_schema`."""
    table = memtable.live_table()
    schema = record_schema(table.schema.field("embedding").type.list_size)
    return table.append_column(schema.field("digest"), record_digests(table)).select(schema.names).cast(schema)
