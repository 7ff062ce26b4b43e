"""The files of a segment, byte by byte, and the proof that they are whole.

A segment is a directory of immutable files. All integers are little-endian; rows are numbered from 0 in insertion
order, the same in all files. Only segments of `limits.GRAPH_ROWS_MIN` rows or more have a graph, codes and a text
index: smaller ones are scanned.

```text
records.arrow     Arrow IPC file of `record_schema` (shared.records.model), uncompressed, ONE record batch. One batch
                  makes every column one buffer: `embedding` is a float32 matrix [rows, dimension] in place, and
                  mapping the file is reading it. Text columns are large_string (64-bit offsets), so documents may
                  exceed 2 GiB. Arrow pads buffers to 8 bytes. Schema metadata: "polychrome.segment" = the format's
                  number in decimal.

ids.index         0   8  magic "PCIDS" 0 0 2 (the last byte is the format's number)
                  8   8  u64  rows n
                 16   8  u64  seed of the hash (differs per segment: nobody can prepare colliding ids)
                 24   8  zero
                 32  8n  u64  xxh3-64 of each id's UTF-8 bytes, ascending
              32+8n  4n  u32  the row of each; rows of equal hashes ascending
                         The id column decides: a hash only says which rows to look at.

metadata.index    0   8  magic "PCMETA" 0 2
                  8   8  u64  rows
                 16   8  u64  where the directory begins
                 24   8  u64  bytes of the directory
                 32   .  arrays, each begins at a multiple of 8, in any order
                  .   .  directory: msgpack (`shared.segment.metadata_columns.Directory`)
                         Per (key, kind) one column: the values in ascending order and the row of each. Kinds and arrays
                         are drawn in `shared.segment.metadata_columns`.

graph.hnsw        hnswlib 0.8.0's own format, label = row. It says which rows to look at and decides no distance: those
                  come from `records.arrow`. What vectors it holds stands in `shared.segment.graph_vectors`.

graph.basis       0   8  magic "PCBASIS" 2
                  8   8  u64  dimension d of the vectors
                 16   8  u64  dimension w of the projections, at most d; 0 when the graph's vectors are not projected
                 24   8  u64  rows that there were when the basis was looked for
                 32   4  <f4  a query whose projection lacks more than this part of its square is out of distribution
                 36 4dw  <f4 [d, w]: the PCA basis. The graph holds its vectors multiplied by this
                         (`shared.segment.projection`). The file is there only when a basis was looked for.

vectors.codes     0   8  magic "PCCODES" 2
                  8   8  u64  rows n
                 16   8  u64  dimension d
                 24   8  zero
                 32 16n  <f4 [n, 4], then zeros up to a multiple of 64
                  .  nd  i1 [n, d]
                         What they say is in `shared.vectors.codes`. Segments from before there were codes have none.

sparse.index      0   8  magic "PCSPARS" 2
                  8   8  u64  rows
                 16   8  u64  where the directory begins
                 24   8  u64  bytes of the directory
                 32   .  arrays, each begins at a multiple of 8, in any order
                  .   .  directory: msgpack (`shared.segment.sparse_file.SparseDirectory`)
                         Per key with sparse vectors: indices <u4 [u] ascending, starts <i8 [u+1], rows <i4 [n],
                         weights <f4 [n], least and most <f4 [u]; for their meaning see `shared.segment.sparse_index`.
                         Only when the schema has a sparse index that some row has a vector for.

text.index        0   8  magic "PCTEXT" 0 2
                  8   8  u64  rows
                 16   8  u64  codes c
                 24   8  zero
                 32  8(c+1) u64  ends: the bitmap of code i is bytes [ends[i], ends[i+1]) of the file
                  .  2c  u16  codes of trigrams (`shared.segment.text_index`), ascending
                  .   .  bitmaps of rows, one after the other (roaring, the portable serialization)
```

The manifest holds name, length and xxh3-128 of every file. `verify` reads everything and is called after a fetch;
opening a segment checks lengths and headers only.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

import msgspec
import xxhash

from shared.errors import Corrupt
from shared.objects.keys import segment_file_key
from shared.vectors.space import Space

FORMAT: Final = 2
FORMAT_KEY: Final = b"polychrome.segment"

RECORDS: Final = "records.arrow"
IDS: Final = "ids.index"
METADATA: Final = "metadata.index"
GRAPH: Final = "graph.hnsw"
BASIS: Final = "graph.basis"
TEXT: Final = "text.index"
SPARSE: Final = "sparse.index"
CODES: Final = "vectors.codes"
OPTIONAL: Final = (BASIS, CODES)
"""Files that a segment has when its list of files names them. A manifest says nothing else of them, so that a process
which does not know them, and copies what a manifest says of a segment, does not lose them.
"""

IDS_MAGIC: Final = b"PCIDS\x00\x00" + bytes([FORMAT])
METADATA_MAGIC: Final = b"PCMETA\x00" + bytes([FORMAT])
TEXT_MAGIC: Final = b"PCTEXT\x00" + bytes([FORMAT])
SPARSE_MAGIC: Final = b"PCSPARS" + bytes([FORMAT])
BASIS_MAGIC: Final = b"PCBASIS" + bytes([FORMAT])
CODES_MAGIC: Final = b"PCCODES" + bytes([FORMAT])
HEADER_BYTES: Final = 32

_CHUNK_BYTES: Final = 4 * 1024 * 1024


class FileInfo(msgspec.Struct, frozen=True):
    """A file: its plain name, its length and its xxh3-128 in hex."""

    name: str
    bytes: int
    checksum: str


class SegmentInfo(msgspec.Struct, frozen=True):
    """All that a manifest says about a segment's files. `path` is the key prefix in the bucket; `id_min` and `id_max`
    are the least and greatest id by UTF-8 bytes; `graph`, `text` and `sparse` say which indexes it has.
    """

    id: str
    path: str
    rows: int
    dimension: int
    space: Space
    graph: bool
    files: list[FileInfo]
    id_min: str
    id_max: str
    text: bool = False
    sparse: bool = False

    def names(self) -> tuple[str, ...]:
        """The file names that a segment of this shape has."""
        names = [RECORDS, IDS, METADATA]
        names += [SPARSE] if self.sparse else []
        names += [GRAPH] if self.graph else []
        names += [TEXT] if self.text else []
        return (*names, *filter(self.has, OPTIONAL))

    def has(self, name: str) -> bool:
        """Whether there is a file of this name."""
        return any(file.name == name for file in self.files)

    def key(self, name: str) -> str:
        """The key of the object in the bucket that holds the file of this name."""
        return segment_file_key(self.path, name)


def checksum(path: Path) -> str:
    """xxh3-128 of a file in hex."""
    digest = xxhash.xxh3_128()
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK_BYTES):
            digest.update(chunk)
    return digest.hexdigest()


def describe(path: Path) -> FileInfo:
    return FileInfo(name=path.name, bytes=path.stat().st_size, checksum=checksum(path))


def check_names(info: SegmentInfo) -> None:
    """Raises Corrupt unless the files that the segment lists are those that a segment of its shape has."""
    if sorted(file.name for file in info.files) != sorted(info.names()):
        raise Corrupt(f"segment {info.id} lists other files than a segment has")


def check_lengths(directory: Path, info: SegmentInfo) -> None:
    """Whether the files that belong to the segment are there and as long as they should be; else Corrupt."""
    check_names(info)
    for file in info.files:
        try:
            found = (directory / file.name).stat().st_size
        except FileNotFoundError:
            raise Corrupt(f"segment {info.id}: {file.name} is missing", info.key(file.name)) from None
        if found != file.bytes:
            message = f"segment {info.id}: {file.name} has {found} bytes, not {file.bytes}"
            raise Corrupt(message, info.key(file.name))


def verify(directory: Path, info: SegmentInfo) -> None:
    """Reads every byte of the segment's files; Corrupt when one is missing, cut or changed."""
    check_lengths(directory, info)
    for file in info.files:
        if checksum(directory / file.name) != file.checksum:
            raise Corrupt(f"segment {info.id}: {file.name} fails its checksum", info.key(file.name))
