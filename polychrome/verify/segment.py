"""Proving one segment: every file by its checksum, every record by its own digest, every id through the index.

Files that need not be mapped are read piece by piece and never stand on the disk; the records and the index of ids are
fetched into scratch space, one segment's at a time for each that is verified at once.
"""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import msgspec
import numpy as np
import pyarrow as pa
import xxhash

from polychrome.verify.model import IDS_NAMED_MAX
from shared.errors import Corrupt
from shared.objects.port import ObjectNotFound, ObjectStore
from shared.records.digest import as_bytes, record_digests
from shared.segment.format import IDS, RECORDS, FileInfo, SegmentInfo, check_names
from shared.segment.id_index import IdIndex
from shared.segment.mending import damaged_files
from shared.segment.records_file import open_records
from shared.vectors.arrays import Uint8Matrix

PIECE_BYTES: Final = 8 * 1024 * 1024
ROWS_AT_ONCE: Final = 8192


@dataclass(slots=True)
class SegmentProof:
    """The result for a segment: what is wrong with its files, by their names; the digests that its rows have by their
    content, bytes [rows, 16], None when the records cannot be read; how many records are damaged, and some of their
    ids.
    """

    damaged: dict[str, str] = field(default_factory=dict)
    digests: Uint8Matrix | None = None
    lost_rows: int = 0
    lost_ids: list[str] = field(default_factory=list)


async def prove_segment(
    objects: ObjectStore, info: SegmentInfo, scratch: Path, read: Callable[[int], None]
) -> SegmentProof:
    """Reads a segment whole. `scratch` is a folder for its records; `read` is told the bytes that were read. Raises
    Unavailable.
    """
    proof = SegmentProof()
    try:
        check_names(info)
    except Corrupt as error:
        proof.damaged[RECORDS] = error.message
        return proof
    mapped = msgspec.structs.replace(info, files=[file for file in info.files if file.name in (RECORDS, IDS)])
    for file in info.files:
        if file not in mapped.files and (what := await _streamed(objects, info.key(file.name), file, read)):
            proof.damaged[file.name] = what
    with tempfile.TemporaryDirectory(prefix="polychrome-verify-", dir=scratch) as name:
        folder = Path(name)
        for file in mapped.files:
            try:
                await objects.download(info.key(file.name), folder / file.name)
                read(file.bytes)
            except ObjectNotFound:
                pass  # `damaged_files` says so
        await asyncio.to_thread(_prove_records, folder, mapped, proof)
    return proof


async def _streamed(objects: ObjectStore, key: str, file: FileInfo, read: Callable[[int], None]) -> str:
    """The damage of a file, in words; "" when it is whole."""
    hashed, at = xxhash.xxh3_128(), 0
    try:
        while True:
            piece = await objects.get_range(key, at, at + PIECE_BYTES)
            await asyncio.to_thread(hashed.update, piece)
            at += len(piece)
            read(len(piece))
            if len(piece) < PIECE_BYTES:
                break
    except ObjectNotFound:
        return "is missing"
    if at != file.bytes:
        return f"has {at} bytes, not {file.bytes}"
    return "" if hashed.hexdigest() == file.checksum else "fails its checksum"


def _prove_records(folder: Path, info: SegmentInfo, proof: SegmentProof) -> None:
    """Adds to the proof what the records and the index of ids show."""
    proof.damaged |= damaged_files(folder, info)
    try:
        batch = open_records(folder / RECORDS, info)
        batch.validate(full=True)  # offsets that lead out of the file would end the process
        computed = as_bytes(record_digests(pa.Table.from_batches([batch])))
        stored = as_bytes(batch.column("digest"))
        wrong = np.flatnonzero((computed != stored).any(axis=1))
        names = [str(batch.column("id")[int(row)].as_py()) for row in wrong[:IDS_NAMED_MAX]]
    except (Corrupt, OSError, ValueError, IndexError, pa.ArrowException) as error:
        # Whatever a reader of Arrow files raises for one that is cut or changed. A file that fits its checksum and
        # cannot be read is damage, too.
        proof.damaged.setdefault(RECORDS, f"cannot be read: {error}")
        proof.lost_rows = info.rows
        return
    proof.lost_rows, proof.lost_ids = len(wrong), names
    if len(wrong):
        proof.damaged.setdefault(RECORDS, f"{len(wrong)} records do not have the digests that are stored beside them")
    if RECORDS in proof.damaged:
        return
    proof.digests = computed
    if IDS not in proof.damaged:
        what = _wrong_in_index(folder / IDS, batch.column("id"))
        if what:
            proof.damaged[IDS] = what


def _wrong_in_index(path: Path, ids: pa.Array) -> str:
    """The damage of an index of ids, in words; "" when every id leads to its newest row."""
    try:
        index = IdIndex(path, ids)
    except Corrupt as error:
        return error.message
    for start in range(0, len(ids), ROWS_AT_ONCE):
        found = np.asarray(index.find(ids.slice(start, ROWS_AT_ONCE).to_pylist()))
        if (found < np.arange(start, start + len(found))).any():  # an id may stand again in a later row, never before
            return f"does not lead to the records of rows {start} to {start + len(found) - 1}"
    return ""
