"""The proof of a manifest against the records: the sum of the digests of all live rows is the one that it says.

A manifest that is taken up without a pointer, which has its hash, may be damaged: a flipped bit of a tombstone brings a
deleted record back. Its checksum shows that, in format 2; in format 1 this does. It needs of each segment the column of
digests alone, 16 bytes a row, which is one stretch of `records.arrow`:

```text
  0   8  magic of an Arrow file
  8   .  message with the schema
  .   .  message with the only record batch: its metadata say where in its body each column's buffers are
  .   .  body. The digests are buffer 8: three of `id`, two each of `inserted` and `written`, then validity and values
```

The column is read without the checksum of its file. So when the sums disagree, the files of the records are read whole
before the manifest is blamed.
"""

from __future__ import annotations

import asyncio
import struct
from typing import Final

import numpy as np
import pyarrow as pa
import xxhash

from shared.errors import Corrupt
from shared.manifest.model import Manifest, SegmentRef
from shared.objects.port import ObjectNotFound, ObjectStore
from shared.process.concurrency import map_concurrently
from shared.records.digest import DIGEST_BYTES, MODULUS, to_hex, total
from shared.records.model import record_schema
from shared.segment.format import RECORDS, SegmentInfo
from shared.vectors.arrays import RowNumbers

HEAD_BYTES: Final = 64 * 1024
"""Bytes read at the beginning of a file: both messages' metadata, of a file with a handful of columns."""
CHUNK_BYTES: Final = 4 * 1024 * 1024
"""Bytes of digests, or of a file, that are read at a time."""
SEGMENTS_AT_ONCE: Final = 4
_DIGESTS_BUFFER: Final = 8


async def verify_digest(objects: ObjectStore, manifest: Manifest) -> None:
    """Raises Corrupt, which names what is damaged, unless the live rows of the manifest's segments have the digest that
    it says. Reads 16 bytes for each row.
    """

    async def of_segment(ref: SegmentRef) -> int:
        return await _digest_of(objects, ref)

    sums = await map_concurrently(of_segment, manifest.segments, at_once=SEGMENTS_AT_ONCE)
    found = to_hex(sum(sums) % MODULUS)
    if found == manifest.digest:
        return
    for ref in manifest.segments:
        await _verify_file(objects, ref.info)
    raise Corrupt(
        f"manifest {manifest.key} does not prove: it says that its records have the digest {manifest.digest}, "
        f"they have {found}",
        manifest.key,
    )


async def _digest_of(objects: ObjectStore, ref: SegmentRef) -> int:
    """The sum of the digests of the segment's live rows."""
    key, rows = ref.info.key(RECORDS), ref.info.rows
    dead = np.fromiter(ref.bitmap(), np.int64, ref.dead)
    start = _digests_at(await _range(objects, key, 0, HEAD_BYTES), ref.info)
    digest, rows_at_once = 0, CHUNK_BYTES // DIGEST_BYTES
    for first in range(0, rows, rows_at_once):
        end = min(rows, first + rows_at_once)
        stretch = await _range(objects, key, start + first * DIGEST_BYTES, start + end * DIGEST_BYTES)
        if len(stretch) != (end - first) * DIGEST_BYTES:
            raise Corrupt(f"{key} is cut", key)
        digest += await asyncio.to_thread(_total_of_live, stretch, dead[(dead >= first) & (dead < end)] - first)
    return digest


def _total_of_live(stretch: bytes, dead: RowNumbers) -> int:
    digests = np.frombuffer(stretch, np.uint8).reshape(-1, DIGEST_BYTES)
    mask = np.ones(len(digests), np.bool_)
    mask[dead] = False
    return total(digests[mask])


def _digests_at(head: bytes, info: SegmentInfo) -> int:
    """Offset of the digests in the file that begins with `head`."""
    key = info.key(RECORDS)
    try:
        if not pa.ipc.read_schema(pa.py_buffer(head[8:])).equals(record_schema(info.dimension)):
            raise Corrupt(f"{key} has other columns", key)
        (schema_bytes,) = struct.unpack_from("<i", head, 12)
        message = 16 + schema_bytes
        (metadata_bytes,) = struct.unpack_from("<i", head, message + 4)
        body = message + 8 + metadata_bytes
        batch = _table(head, message + 8, 2)
        if _field(head, batch, 3):
            raise Corrupt(f"{key} is compressed", key)
        (rows,) = struct.unpack_from("<q", head, _field(head, batch, 0))
        buffers = _follow(head, _field(head, batch, 2)) + 4
        offset, size = struct.unpack_from("<qq", head, buffers + 16 * _DIGESTS_BUFFER)
    except (struct.error, pa.ArrowInvalid) as error:
        raise Corrupt(f"{key} cannot be read: {error}", key) from error
    if rows != info.rows or size < rows * DIGEST_BYTES:
        raise Corrupt(f"{key} has {rows} rows, not {info.rows}", key)
    return int(body + offset)


def _table(data: bytes, root: int, index: int) -> int:
    """Offset of the table that is field `index` of the flatbuffer table whose root offset stands at `root`."""
    return _follow(data, _field(data, _follow(data, root), index))


def _field(data: bytes, table: int, index: int) -> int:
    """Offset of the value of a flatbuffer table's field; 0 when the table does not have it."""
    (back,) = struct.unpack_from("<i", data, table)
    vtable = table - back
    (vtable_bytes,) = struct.unpack_from("<H", data, vtable)
    if 4 + 2 * index >= vtable_bytes:
        return 0
    (offset,) = struct.unpack_from("<H", data, vtable + 4 + 2 * index)
    return table + int(offset) if offset else 0


def _follow(data: bytes, at: int) -> int:
    return at + int(struct.unpack_from("<I", data, at)[0])


async def _verify_file(objects: ObjectStore, info: SegmentInfo) -> None:
    """Raises Corrupt unless the file of the segment's records has its checksum."""
    [file] = [file for file in info.files if file.name == RECORDS]
    key, checksum = info.key(RECORDS), xxhash.xxh3_128()
    for start in range(0, file.bytes, CHUNK_BYTES):
        chunk = await _range(objects, key, start, start + CHUNK_BYTES)
        await asyncio.to_thread(checksum.update, chunk)
    if checksum.hexdigest() != file.checksum:
        raise Corrupt(f"{key} has another checksum", key)


async def _range(objects: ObjectStore, key: str, start: int, end: int) -> bytes:
    try:
        return await objects.get_range(key, start, end)
    except ObjectNotFound as error:
        raise Corrupt(f"{key} is missing", key) from error
