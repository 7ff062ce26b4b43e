"""An inverted index of metadata: from (key, type, value) to rows.

It is built from the JSON text column, in memory for the tail, or written beside a segment and mapped. The cost of a
lookup does not depend on keys that it does not name: a column is a few array views, made when it is looked up.

Scalars and elements of arrays are kept apart: `equals` and `compare` never look into arrays, `contains` never
looks at scalars.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, Self

import msgspec
import numpy as np
import orjson
import pyarrow as pa

from shared.errors import Corrupt
from shared.process import work
from shared.records.indexing import EVERYTHING, Indexing
from shared.records.where import Compare, Scalar
from shared.segment.format import HEADER_BYTES, METADATA_MAGIC
from shared.segment.mapping import map_bytes
from shared.segment.metadata_columns import (
    SCHEMA_TYPES,
    Column,
    ColumnInfo,
    Directory,
    Kind,
    NumberColumn,
    Packed,
    TextColumn,
    array_types,
    build_column,
    column_of,
    packed_values,
)
from shared.vectors.arrays import RowNumbers32, Uint8Array

_Name = tuple[str, Kind]

_DIRECTORY: Final = msgspec.msgpack.Decoder(Directory)

_SCALAR_KINDS: Final[dict[type, Kind]] = {int: Kind.INT, float: Kind.FLOAT, bool: Kind.BOOL, str: Kind.STR}
_ELEMENT_KINDS: Final[dict[type, Kind]] = {int: Kind.INTS, float: Kind.FLOATS, bool: Kind.BOOLS, str: Kind.STRS}
_CHUNK_ROWS: Final = 4096
_NO_ROWS: Final[RowNumbers32] = np.empty(0, dtype="<i4")


class MetadataIndex:
    """The index of `rows` rows. Lookups return row numbers, each row once, in no particular order."""

    def __init__(self, rows: int, columns: Mapping[_Name, Column]) -> None:
        self.rows = rows
        self._columns = columns

    @classmethod
    def from_json(cls, rows: Sequence[str | None] | pa.Array, indexing: Indexing = EVERYTHING) -> Self:
        """The index of a metadata object per row (JSON text, None for none), as far as `indexing` says."""
        gathered: dict[_Name, tuple[list[RowNumbers32], list[Packed]]] = {}
        # Values are objects only for a chunk of rows at a time: those of a million rows would take gigabytes.
        for at in range(0, len(rows), _CHUNK_ROWS):
            work.check()
            chunk = rows[at : at + _CHUNK_ROWS]
            texts = chunk.to_pylist() if isinstance(chunk, pa.Array) else chunk
            for name, (places, values) in _inverted(texts).items():
                if not indexing.has(name[0], SCHEMA_TYPES[name[1]]):
                    continue
                into = gathered.setdefault(name, ([], []))
                into[0].append(np.array(places, dtype="<i4") + np.int32(at))
                into[1].append(packed_values(name[1], values))
        return cls(len(rows), {name: build_column(name[1], into[1], into[0]) for name, into in gathered.items()})

    def write(self, path: Path) -> None:
        """Writes the file drawn in `format`."""
        infos: list[ColumnInfo] = []
        with path.open("wb") as file:
            file.write(bytes(HEADER_BYTES))
            for (key, kind), column in self._columns.items():
                places: list[tuple[int, int]] = []
                for array in column.arrays():
                    file.write(bytes(-file.tell() % 8))
                    places.append((file.tell(), len(array)))
                    file.write(np.ascontiguousarray(array).data)
                infos.append(ColumnInfo(key, kind, places))
            begin = file.tell()
            directory = msgspec.msgpack.encode(Directory(infos))
            file.write(directory)
            file.seek(0)
            file.write(METADATA_MAGIC)
            for number in (self.rows, begin, len(directory)):
                file.write(number.to_bytes(8, "little"))

    @classmethod
    def open(cls, path: Path) -> Self:
        """The index in a file, mapped. Raises Corrupt when it is none."""
        mapped = map_bytes(path, HEADER_BYTES)
        header = mapped[:HEADER_BYTES].tobytes()
        rows, begin, length = (int.from_bytes(header[at : at + 8], "little") for at in (8, 16, 24))
        if header[:8] != METADATA_MAGIC or begin + length != len(mapped):
            raise Corrupt(f"{path.name} is no metadata index")
        try:
            directory = _DIRECTORY.decode(mapped[begin:].data)
        except msgspec.MsgspecError as error:
            raise Corrupt(f"{path.name}: {error}") from error
        return cls(rows, _MappedColumns(mapped, directory))

    def names(self) -> Iterable[tuple[str, Kind]]:
        """Every (key, kind) that some row has."""
        return self._columns.keys()

    def column(self, key: str, kind: Kind) -> Column | None:
        """The values of one kind at `key`, None when no row has any."""
        return self._columns.get((key, kind))

    def equals(self, key: str, value: Scalar) -> RowNumbers32:
        """Rows whose scalar at `key` equals `value`. Integers and floats compare as numbers; other types never mix."""
        if type(value) is bool:
            return self._select((key, Kind.BOOL), Compare.EQ, value)
        if isinstance(value, str):
            column = self._columns.get((key, Kind.STR))
            return column.equal(value) if isinstance(column, TextColumn) else _NO_ROWS
        return self.compare(key, Compare.EQ, value)

    def compare(self, key: str, op: Compare, value: float) -> RowNumbers32:
        """Rows whose number at `key` stands in relation `op` (any but `NE`) to `value`, exactly, whatever mix of
        types.
        """
        found = [self._select((key, kind), op, value) for kind in (Kind.INT, Kind.FLOAT)]
        filled = [rows for rows in found if len(rows)]
        return filled[0] if len(filled) == 1 else np.concatenate(found)

    def contains(self, key: str, value: Scalar) -> RowNumbers32:
        """Rows whose array at `key` has the element `value`, of the very same type."""
        kind = _ELEMENT_KINDS[type(value)]
        if isinstance(value, str):
            column = self._columns.get((key, kind))
            return column.equal(value) if isinstance(column, TextColumn) else _NO_ROWS
        return self._select((key, kind), Compare.EQ, value)

    def exists(self, key: str) -> RowNumbers32:
        """Rows that have any value at `key`."""
        columns = (self._columns.get((key, kind)) for kind in Kind)
        rows = [column.rows for column in columns if column is not None]
        return np.unique(np.concatenate(rows)) if rows else _NO_ROWS

    def _select(self, name: _Name, op: Compare, value: float) -> RowNumbers32:
        column = self._columns.get(name)
        if not isinstance(column, NumberColumn) or (isinstance(value, float) and math.isnan(value)):
            return _NO_ROWS
        return column.select(op, value)


class _MappedColumns(Mapping[_Name, Column]):
    """The columns of a mapped file: views of it, made on demand and kept."""

    def __init__(self, mapped: Uint8Array, directory: Directory) -> None:
        self._mapped = mapped
        self._infos = {(info.key, info.kind): info for info in directory.columns}
        self._made: dict[_Name, Column] = {}

    def __getitem__(self, name: _Name) -> Column:
        column = self._made.get(name)
        if column is None:  # two threads may make the same one at once: they are equal
            column = self._made[name] = self._column(self._infos[name])
        return column

    def _column(self, info: ColumnInfo) -> Column:
        arrays = [
            self._mapped[begin : begin + count * np.dtype(of).itemsize].view(of)
            for (begin, count), of in zip(info.arrays, array_types(info.kind), strict=True)
        ]
        return column_of(info.kind, arrays)

    def __iter__(self) -> Iterator[_Name]:
        return iter(self._infos)

    def __len__(self) -> int:
        return len(self._infos)


def _inverted(texts: Sequence[str | None]) -> dict[_Name, tuple[list[int], list[Any]]]:
    """The values at each (key, kind), with the index in `texts` that each comes from, ascending."""
    inverted: dict[_Name, tuple[list[int], list[Any]]] = {}
    for place, text in enumerate(texts):
        if text is None:
            continue
        for key, value in orjson.loads(text).items():
            for kind, values in _kinds(value):
                into = inverted.setdefault((key, kind), ([], []))
                into[0].extend([place] * len(values))
                into[1].extend(values)
    return inverted


def _kinds(value: object) -> Iterable[tuple[Kind, Sequence[Any]]]:
    """The columns a value belongs to. Null and objects (sparse vectors have an index of their own) belong to none."""
    if isinstance(value, list):
        by_kind: dict[Kind, dict[Any, None]] = {}
        for element in value:
            kind = _kind(element, _ELEMENT_KINDS)
            if kind is not None:
                by_kind.setdefault(kind, {})[element] = None
        return [(kind, list(elements)) for kind, elements in by_kind.items()]
    kind = _kind(value, _SCALAR_KINDS)
    return () if kind is None else ((kind, (value,)),)


def _kind(value: object, kinds: Mapping[type, Kind]) -> Kind | None:
    # An integer outside int64 counts as the float that it reads back as.
    if type(value) is int and not -(2**63) <= value < 2**63:
        return kinds[float]
    return kinds.get(type(value))
