"""Mending a segment on the local disk: what the bucket has damaged of its derived files is made again of its records.

Only `records.arrow` holds what cannot be had otherwise. So when some of a segment's other files are missing, cut or
changed in the bucket, its folder in the cache gets others in their place, and a note of it:

```text
ids, metadata, sparse, text, codes    made again of the records
graph, basis                          left out: searches scan, which finds as much or more and takes longer
.mended.json                          the segment as this folder has it, and what was found damaged (`Mended`)
```

Nothing in the bucket changes. A compaction rewrites the segment (`compactor.sources`), and then no manifest names the
damaged files any more.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

import msgspec

from shared.errors import Corrupt
from shared.records.indexing import Indexing
from shared.segment.codes_file import write_codes
from shared.segment.format import (
    BASIS,
    CODES,
    GRAPH,
    IDS,
    METADATA,
    RECORDS,
    SPARSE,
    TEXT,
    SegmentInfo,
    checksum,
    describe,
)
from shared.segment.id_index import write_id_index
from shared.segment.metadata_index import MetadataIndex
from shared.segment.records_file import embedding_matrix, open_records
from shared.segment.sparse_file import write_sparse_indexes
from shared.segment.sparse_index import sparse_indexes
from shared.segment.text_index import write_text_index
from shared.vectors.codes import encode

NOTE: Final = ".mended.json"


class Mended(msgspec.Struct, frozen=True):
    """The note in the folder of a mended segment: the files that the folder has, and what is wrong in the bucket with
    the files that were damaged, by their names.
    """

    info: SegmentInfo
    damaged: dict[str, str]


_MENDED: Final = msgspec.json.Decoder(Mended)


def mended(directory: Path) -> Mended | None:
    """The note in a segment's folder; None when the segment is as the manifest says. Raises Corrupt when the note
    cannot be read.
    """
    try:
        return _MENDED.decode((directory / NOTE).read_bytes())
    except FileNotFoundError:
        return None
    except msgspec.MsgspecError as error:
        raise Corrupt(f"{directory.name}: {NOTE}: {error}") from error


def as_held(directory: Path, info: SegmentInfo) -> SegmentInfo:
    """The segment that the manifest describes by `info`, as its folder has it. Raises Corrupt."""
    note = mended(directory)
    if note is None:
        return info
    if msgspec.structs.replace(note.info, files=info.files, graph=info.graph) != info:
        raise Corrupt(f"segment {info.id}: {NOTE} is of another segment")
    return note.info


def damaged_files(directory: Path, info: SegmentInfo) -> dict[str, str]:
    """The files that are missing, cut or changed in this folder, each with what is wrong. Reads every byte."""
    found: dict[str, str] = {}
    for file in info.files:
        path = directory / file.name
        if not path.exists():
            found[file.name] = "is missing"
        elif (size := path.stat().st_size) != file.bytes:
            found[file.name] = f"has {size} bytes, not {file.bytes}"
        elif checksum(path) != file.checksum:
            found[file.name] = "fails its checksum"
    return found


def mend(
    directory: Path,
    info: SegmentInfo,
    indexing: Indexing,
    damaged: Mapping[str, str],
    check: Callable[[], None] | None = None,
) -> Mended:
    """Puts others in the place of the files `damaged` (names, and what is wrong) in a folder whose other files are
    whole, and writes the note. `indexing` is the collection's. Takes long: for a thread; what `check` raises ends it.
    Raises Corrupt, naming the file, when the records are among them.
    """
    if RECORDS in damaged:
        raise Corrupt(f"segment {info.id}: {RECORDS} {damaged[RECORDS]}", info.key(RECORDS))
    left_out = {GRAPH, BASIS} if {GRAPH, BASIS} & damaged.keys() else set[str]()
    for name in {*damaged, *left_out}:
        (directory / name).unlink(missing_ok=True)
    batch = open_records(directory / RECORDS, info)
    if IDS in damaged:
        write_id_index(directory / IDS, batch.column("id").to_pylist(), info.id)
    if METADATA in damaged:
        MetadataIndex.from_json(batch.column("metadata"), indexing).write(directory / METADATA)
    if SPARSE in damaged:
        found = sparse_indexes(batch.column("metadata"), indexing.sparse)
        write_sparse_indexes(directory / SPARSE, batch.num_rows, found)
    if TEXT in damaged:
        write_text_index(directory / TEXT, batch.column("document"), None, check)
    if CODES in damaged:
        write_codes(directory / CODES, encode(info.space, embedding_matrix(batch.column("embedding"))))
    changed = damaged.keys() | left_out
    files = [
        describe(directory / file.name) if file.name in changed else file
        for file in info.files
        if file.name not in left_out
    ]
    note = Mended(msgspec.structs.replace(info, files=files, graph=info.graph and not left_out), dict(damaged))
    (directory / NOTE).write_bytes(msgspec.json.encode(note))
    return note
