"""Entries prove themselves: nothing that a stream holds is believed before its checksums are compared. Pure.

1. `h` is the SHA-1 of all other fields but the payload, so no number of the entry is read before it fits.
2. `x` is the checksum of the payload, made by the process that encoded it; `h` covers it.
3. `b` is `h` of the entry before: an entry that fits stands where it was written, behind what it was written behind.

An entry of version 0.1.0 has none of these; only its form and its predecessor are compared. Neither is `b` compared of
an entry behind one: its writer went by the newest chain that the state had.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Final

from shared.errors import Corrupt
from shared.log.batch import payload_checksum
from shared.log.naming import entry_name
from shared.log.state import Entry, ShardState, position_of

FIELDS: Final = [b"p", b"f", b"e", b"l", b"n", b"c", b"t", b"r", b"b", b"x", b"h", b"d"]
FIELDS_0_1_0: Final = [b"p", b"f", b"e", b"l", b"n", b"c", b"d"]

RawEntry = tuple[bytes, list[bytes]]
"""An entry as XRANGE gives it: its id, and fields and values in the order in which entries.lua writes them."""


class DamagedEntry(Corrupt):
    """An entry of a shard's stream is not what was written, or is not there. The operations that are damaged are among
    those at the positions [first, end); `end` is None when nothing that is believed says it.
    """

    def __init__(
        self,
        collection_id: str,
        shard: int,
        entry_id: str,
        reason: str,
        first: int | None = None,
        end: int | None = None,
        fields: Entry | None = None,
    ) -> None:
        self.collection_id = collection_id
        self.shard = shard
        self.entry_id = entry_id
        self.reason = reason
        self.first = position_of(entry_id) if first is None else first
        self.end = end
        self.fields = fields
        """The entry with its damaged payload, when nothing else of it is damaged."""
        self.state: ShardState | None = None
        """The shard's state as of the read that found it."""
        positions = f"position {self.first} on" if end is None else f"positions {self.first} to {end - 1}"
        message = f"entry {entry_id} of {collection_id}/{shard} ({positions}): {reason}"
        super().__init__(message, entry_name(collection_id, shard, entry_id))


def chain_of_entry(entry: Entry) -> str:
    """`h` of an entry, from its other fields."""
    previous, first, end, last, count, totals, time_ms, request, before, checksum, _ = raw_texts(entry)
    parts = (before, previous, entry.id, first, end, last, count, totals, time_ms, request, checksum)
    return hashlib.sha1(" ".join(parts).encode()).hexdigest()  # noqa: S324  # what Redis' Lua offers


def raw_texts(entry: Entry) -> tuple[str, ...]:
    """The entry's fields as they are stored, in their order, but for the payload."""
    return (
        entry.previous, str(entry.first), str(entry.end), "1" if entry.last else "0", str(entry.count), entry.totals,
        str(entry.time_ms), entry.request_id, entry.before_chain, entry.checksum, entry.chain,
    )  # fmt: skip


def verified_entry(collection_id: str, shard: int, raw: RawEntry) -> Entry:
    """The entry, once its own checksums fit. Raises DamagedEntry."""
    id_, pairs = raw
    names, values = pairs[0::2], pairs[1::2]
    if names == FIELDS:
        previous, first, end, last, count, totals, time_ms, request, before, checksum, chain, payload = values
        hashed = b" ".join((before, previous, id_, first, end, last, count, totals, time_ms, request, checksum))
        if hashlib.sha1(hashed).hexdigest().encode() != chain:  # noqa: S324
            raise DamagedEntry(collection_id, shard, id_.decode(), "its fields do not fit their checksum")
        entry = Entry(
            id_.decode(), previous.decode(), int(first), int(end), last == b"1", int(count), payload,
            totals.decode(), int(time_ms), checksum.decode(), chain.decode(), before.decode(), request.decode(),
        )  # fmt: skip
        if payload_checksum(payload) != entry.checksum:
            reason = "its payload does not fit its checksum"
            raise DamagedEntry(collection_id, shard, entry.id, reason, end=entry.end, fields=entry)
        return entry
    if names == FIELDS_0_1_0:
        return _entry_0_1_0(collection_id, shard, id_, values)
    raise DamagedEntry(collection_id, shard, id_.decode(), "it has other fields than an append writes")


def _entry_0_1_0(collection_id: str, shard: int, id_: bytes, values: Sequence[bytes]) -> Entry:
    previous, first, end, last, count, totals, payload = values
    try:
        position_of(previous.decode())
        return Entry(
            id_.decode(), previous.decode(), int(first), int(end), last == b"1", int(count), payload, totals.decode()
        )
    except ValueError as error:
        raise DamagedEntry(collection_id, shard, id_.decode(), f"a field is no number: {error}") from error


def check_follows(collection_id: str, shard: int, before: Entry, entry: Entry) -> None:
    """Raises DamagedEntry unless the entry was written behind `before`, an entry that was verified."""
    missing = entry.previous
    if missing == before.id:
        check_chain(collection_id, shard, before.id, before.chain, entry)
    elif position_of(missing) > position_of(before.id):
        raise missing_entry(collection_id, shard, missing, position_of(before.id) + before.count, entry.id)
    else:
        raise DamagedEntry(collection_id, shard, entry.id, f"it follows {missing}, not {before.id}", end=entry.end)


def follows_covered(entry: Entry, covers: int) -> bool:
    """Whether nothing is missing between a manifest that covers everything below `covers` and this entry, the first one
    that is read behind it.
    """
    return position_of(entry.previous) < covers


def check_chain(collection_id: str, shard: int, before: str, before_chain: str, entry: Entry) -> None:
    """Raises DamagedEntry unless the entry continues the chain `before_chain` of the entry `before`; nothing is said
    where one of them has none. A substitute without operations may not know what was before it.
    """
    unknown = not entry.before_chain and not entry.count
    if before_chain and entry.chain and entry.before_chain != before_chain and not unknown:
        reason = f"its chain does not continue that of {before}"
        raise DamagedEntry(collection_id, shard, entry.id, reason, end=entry.end)


def missing_entry(collection_id: str, shard: int, missing: str, first: int, before: str | None) -> DamagedEntry:
    """The error for an entry that is not there. Operations are lost from the position `first` on, up to those of the
    entry `before`; None where none follows.
    """
    end = None if before is None else position_of(before)
    behind = "at the end" if before is None else f"before {before}"
    return DamagedEntry(collection_id, shard, missing, f"the log lost it, {behind}", first, end)
