"""The sparse indexes of a segment in one file (drawn in `format`): written once, mapped, searched in place."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final

import msgspec
import numpy as np

from shared.errors import Corrupt
from shared.segment.format import HEADER_BYTES, SPARSE_MAGIC
from shared.segment.mapping import map_bytes
from shared.segment.sparse_index import InvertedIndex
from shared.vectors.arrays import AnyArray, Uint8Array

_TYPES: Final = ("<u4", "<i8", "<i4", "<f4", "<f4", "<f4")
"""The types of the arrays of an index, in the order of its fields."""


class SparseEntry(msgspec.Struct, frozen=True, array_like=True):
    """The index of one key: where each of its arrays begins in the file and how many elements it has."""

    key: str
    arrays: list[tuple[int, int]]


class SparseDirectory(msgspec.Struct, frozen=True):
    """The directory at the end of `sparse.index`."""

    entries: list[SparseEntry]


_SPARSE_DIRECTORY: Final = msgspec.msgpack.Decoder(SparseDirectory)


def write_sparse_indexes(path: Path, rows: int, indexes: Mapping[str, InvertedIndex]) -> None:
    """Writes the file drawn in `format`: of a segment with so many rows, the index of each key."""
    entries: list[SparseEntry] = []
    with path.open("wb") as file:
        file.write(bytes(HEADER_BYTES))
        for key, index in indexes.items():
            places: list[tuple[int, int]] = []
            for array, of in zip(_arrays(index), _TYPES, strict=True):
                file.write(bytes(-file.tell() % 8))
                places.append((file.tell(), len(array)))
                file.write(np.ascontiguousarray(array, of).data)
            entries.append(SparseEntry(key, places))
        begin = file.tell()
        directory = msgspec.msgpack.encode(SparseDirectory(entries))
        file.write(directory)
        file.seek(0)
        file.write(SPARSE_MAGIC)
        for number in (rows, begin, len(directory)):
            file.write(number.to_bytes(8, "little"))


def open_sparse_indexes(path: Path, rows: int) -> Mapping[str, InvertedIndex]:
    """The indexes in a file by key, mapped. Raises Corrupt when it is not of a segment with so many rows."""
    mapped = map_bytes(path, HEADER_BYTES)
    header = mapped[:HEADER_BYTES].tobytes()
    count, begin, length = (int.from_bytes(header[at : at + 8], "little") for at in (8, 16, 24))
    if header[:8] != SPARSE_MAGIC or count != rows or begin + length != len(mapped):
        raise Corrupt(f"{path.name} has no sparse indexes of {rows} rows")
    try:
        directory = _SPARSE_DIRECTORY.decode(mapped[begin:].data)
    except msgspec.MsgspecError as error:
        raise Corrupt(f"{path.name}: {error}") from error
    return {entry.key: InvertedIndex(rows, *_views(mapped, entry)) for entry in directory.entries}


def _arrays(index: InvertedIndex) -> tuple[AnyArray, ...]:
    return index.indices, index.starts, index.rows, index.weights, index.least, index.most


def _views(mapped: Uint8Array, entry: SparseEntry) -> Iterator[AnyArray]:
    for (begin, count), of in zip(entry.arrays, _TYPES, strict=True):
        yield mapped[begin : begin + count * np.dtype(of).itemsize].view(of)
