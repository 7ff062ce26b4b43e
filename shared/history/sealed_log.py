"""Sealed log objects: what compaction drops from a stream, kept in the bucket for reads of the past.

Before the log service trims a stream of a collection that keeps its history, it writes the entries that are going to be
trimmed as immutable objects, and only then trims:

```text
<collection>/<shard>/log/<first>-<end>.log          positions, 20 digits each

bytes   0  magic       8    "PClog 1" and a line feed
        8  checksum   16    xxh3-128 of everything behind it, big-endian
       24  first       8    int64, little-endian, as are the next three
       32  end         8
       40  first_ms    8    the earliest and the latest time of an entry (field `t`); 0 when no entry has one
       48  last_ms     8
       56  entries          msgpack: {collection, shard, entries: [[id, [value of each field, as stored]], ..]}
```

Invariants
1. An object has every operation of its shard at the positions [first, end), and no other. Where objects meet or
   overlap, they have the same entries.
2. It is created once and never replaced. Its entries are those of the stream, byte by byte: each proves itself
   (`shared.log.verification`), and names the one before it.
3. A stream of a collection with history begins, at every moment, where some object ends, or before.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Final

import msgspec
import xxhash

from shared.errors import Corrupt
from shared.log.state import Entry
from shared.log.verification import FIELDS, FIELDS_0_1_0, check_follows, verified_entry
from shared.objects.keys import SealedRange

OBJECT_BYTES: Final = 32 * 1024 * 1024
"""Payload after which the next object begins."""

MAGIC: Final = b"PClog 1\n"
_HEADER: Final = struct.Struct("<8s16sqqqq")
_CHECKED_FROM: Final = 24
HEADER_BYTES: Final = _HEADER.size


@dataclass(frozen=True, slots=True)
class Times:
    """The earliest and the latest time of the entries of an object, in ms since the epoch; 0 when no entry has one."""

    first_ms: int
    last_ms: int


class _Body(msgspec.Struct, frozen=True):
    collection: str
    shard: int
    entries: list[tuple[bytes, list[bytes]]]


_decode_body = msgspec.msgpack.Decoder(_Body).decode


def encode_sealed(sealed: SealedRange, entries: Sequence[Entry]) -> bytes:
    """The bytes of the object: always the same for the same entries."""
    raw = [(entry.id.encode(), _values(entry)) for entry in entries]
    body = msgspec.msgpack.encode(_Body(sealed.collection, sealed.shard, raw))
    times = [entry.time_ms for entry in entries if entry.time_ms]
    numbers = struct.pack("<qqqq", sealed.first, sealed.end, min(times, default=0), max(times, default=0))
    checksum = xxhash.xxh3_128_digest(numbers + body)
    return b"".join((MAGIC, checksum, numbers, body))


def decode_times(header: bytes) -> Times:
    """The times in an object's first HEADER_BYTES bytes, which nothing proves: to choose by. Raises Corrupt."""
    if len(header) < HEADER_BYTES or not header.startswith(MAGIC):
        raise Corrupt("not a sealed log object")
    *_, first_ms, last_ms = _HEADER.unpack(header[:HEADER_BYTES])
    return Times(first_ms, last_ms)


def decode_sealed(sealed: SealedRange, data: bytes) -> list[Entry]:
    """The entries of the object, found under the key of this range: verified, each behind the one before. Raises
    Corrupt.
    """
    if len(data) < HEADER_BYTES or not data.startswith(MAGIC):
        raise Corrupt(f"{sealed.key} is no sealed log object", sealed.key)
    _, checksum, first, end, _, _ = _HEADER.unpack(data[:HEADER_BYTES])
    if xxhash.xxh3_128_digest(data[_CHECKED_FROM:]) != checksum:
        raise Corrupt(f"{sealed.key} does not fit its checksum", sealed.key)
    try:
        body = _decode_body(memoryview(data)[HEADER_BYTES:])
    except msgspec.MsgspecError as error:
        raise Corrupt(f"{sealed.key} does not decode: {error}", sealed.key) from error
    if (body.collection, body.shard, first, end) != (sealed.collection, sealed.shard, sealed.first, sealed.end):
        raise Corrupt(f"{sealed.key} holds {body.collection}/{body.shard} [{first}, {end})", sealed.key)
    entries = [verified_entry(sealed.collection, sealed.shard, _raw(*each)) for each in body.entries]
    for before, entry in pairwise(entries):
        check_follows(sealed.collection, sealed.shard, before, entry)
    return entries


def _values(entry: Entry) -> list[bytes]:
    """The values of an entry's fields, in the order of entries.lua."""
    texts = [entry.previous, str(entry.first), str(entry.end), "1" if entry.last else "0", str(entry.count)]
    texts.append(entry.totals)
    if entry.chain:
        texts += [str(entry.time_ms), entry.request_id, entry.before_chain, entry.checksum, entry.chain]
    return [*(text.encode() for text in texts), entry.payload]


def _raw(id_: bytes, values: list[bytes]) -> tuple[bytes, list[bytes]]:
    """The entry as XRANGE would give it."""
    names = FIELDS if len(values) == len(FIELDS) else FIELDS_0_1_0
    pairs = [b""] * (2 * len(values))
    pairs[0::2], pairs[1::2] = names[: len(values)], values
    return id_, pairs
