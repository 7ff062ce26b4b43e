"""Reads the columns of an answer from rows of a read view, column by column."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, NamedTuple, cast

import numpy as np

from queryworker.view.part import ViewPart
from queryworker.view.read_view import ReadView
from shared.process import work
from shared.records.columns import Columns
from shared.records.model import Include
from shared.vectors.arrays import Indices, Positions, RowNumbers

FLOAT_JSON_BYTES: Final = 12
"""About how many bytes one number of an embedding takes in JSON."""

FLOAT_BYTES: Final = 4

TEXT_BYTES: Final = 64
"""Memory of a text as an object, beside its bytes."""

READ_ROWS: Final = 4096
"""Rows whose texts or vectors are read between two looks at whether the work is still wanted: some 10 ms."""


class RowRefs(NamedTuple):
    """Rows of a read view in the order of an answer, parallel: the number of the part, and the row in it."""

    parts: Indices
    rows: RowNumbers

    def slice(self, begin: int, end: int | None) -> RowRefs:
        """The `begin`-th to the `end`-th (exclusive) of the rows."""
        return RowRefs(self.parts[begin:end], self.rows[begin:end])

    def take(self, places: Indices) -> RowRefs:
        """The rows at these places."""
        return RowRefs(self.parts[places], self.rows[places])


NO_ROWS: Final = RowRefs(np.empty(0, np.intp), np.empty(0, np.int64))


class RequestedColumns(NamedTuple):
    """The columns of an answer that are filled in."""

    ids: bool
    documents: bool
    metadatas: bool
    uris: bool
    embeddings: bool


class _PartRows(NamedTuple):
    """The rows of an answer that come from one part, and their places in the answer."""

    part: ViewPart
    rows: RowNumbers
    places: Indices


def assemble(view: ReadView, refs: RowRefs, requested: RequestedColumns) -> tuple[Positions, Columns]:
    """For these rows, in their order, the positions at which they were inserted, int64 [n], and their columns."""
    count = len(refs.rows)
    by_part = _rows_by_part(view, refs)

    def text(column: str) -> list[str | None]:
        return _texts(by_part, count, lambda rows: _read_texts(rows, column))

    dimension = view.dimension or 0
    inserted = np.empty(count, np.int64)
    for rows in by_part:
        inserted[rows.places] = rows.part.inserted[rows.rows]
    columns = Columns(
        ids=cast("list[str]", text("id")) if requested.ids else [],  # every record has an id
        documents=text("document") if requested.documents else None,
        metadatas=text("metadata") if requested.metadatas else None,
        uris=text("uri") if requested.uris else None,
        embeddings=_vectors(by_part, count, dimension) if requested.embeddings else None,
        dimension=dimension,
    )
    return inserted, columns


def encoded_bytes(view: ReadView, refs: RowRefs, requested: RequestedColumns) -> int:
    """About how many bytes an answer with these rows has in JSON. Texts in segments are counted without reading."""
    columns = (
        ("id", requested.ids), ("document", requested.documents), ("metadata", requested.metadatas),
        ("uri", requested.uris),
    )  # fmt: skip
    found = len(refs.rows) * (view.dimension or 0) * FLOAT_JSON_BYTES if requested.embeddings else 0
    for part, numbers, _ in _rows_by_part(view, refs):
        for column, is_requested in columns:
            for at in range(0, len(numbers) if is_requested else 0, READ_ROWS):
                work.check()
                found += part.text_bytes(column, numbers[at : at + READ_ROWS])
    return found


def objects_bytes(records: int, requested: RequestedColumns) -> int:
    """About how much memory the columns of so many records take beside the bytes of their values."""
    return TEXT_BYTES * records * sum((requested.ids, requested.documents, requested.metadatas, requested.uris))


def claim_values(view: ReadView, refs: RowRefs, requested: RequestedColumns, *, as_json: bool) -> None:
    """Claims the memory of the values of an answer with these rows (`shared.process.work.claim`), before they are read:
    in the body of the client's answer, or in columns.
    """
    size = encoded_bytes(view, refs, requested._replace(embeddings=requested.embeddings and as_json))
    if requested.embeddings and not as_json:
        size += FLOAT_BYTES * (view.dimension or 0) * len(refs.rows)
    work.claim(size)


class ViewRows:
    """Rows of a read view for an answer that is written piece by piece (`shared.records.chunked_answers.RowReader`).
    They keep the view, and with it a version of the shard, in memory.
    """

    def __init__(self, view: ReadView, refs: RowRefs) -> None:
        self._view = view
        self._refs = refs
        self.count = len(refs.rows)
        self.dimension = view.dimension or 0

    def read(self, begin: int, end: int, column: Include | None) -> Columns:
        """The `begin`-th to the `end`-th row (exclusive) with one column: ids for None, and uris too with metadatas."""
        requested = RequestedColumns(
            ids=column is None,
            documents=column is Include.DOCUMENTS,
            metadatas=column is Include.METADATAS,
            uris=column in (Include.URIS, Include.METADATAS),
            embeddings=column is Include.EMBEDDINGS,
        )
        return assemble(self._view, self._refs.slice(begin, end), requested)[1]


def written_at(view: ReadView, refs: RowRefs) -> Positions:
    """The positions at which these rows were changed last, int64 [n]."""
    written = np.empty(len(refs.rows), np.int64)
    for rows in _rows_by_part(view, refs):
        written[rows.places] = rows.part.written[rows.rows]
    return written


def _rows_by_part(view: ReadView, refs: RowRefs) -> list[_PartRows]:
    numbers = sorted(set(refs.parts.tolist()))
    if len(numbers) == 1:
        return [_PartRows(view.parts[numbers[0]], refs.rows, np.arange(len(refs.rows)))]
    return [
        _PartRows(view.parts[number], refs.rows[places], places)
        for number in numbers
        for places in [np.flatnonzero(refs.parts == number)]
    ]


def _read_texts(rows: _PartRows, column: str) -> list[str | None]:
    if len(rows.rows) <= READ_ROWS:
        return rows.part.texts(column, rows.rows)
    found: list[str | None] = []
    for at in range(0, len(rows.rows), READ_ROWS):
        work.check()
        found += rows.part.texts(column, rows.rows[at : at + READ_ROWS])
    return found


def _texts(by_part: list[_PartRows], count: int, read: Callable[[_PartRows], list[str | None]]) -> list[str | None]:
    if len(by_part) == 1:
        return read(by_part[0])
    found = np.empty(count, object)
    for rows in by_part:
        found[rows.places] = read(rows)
    texts: list[str | None] = found.tolist()
    return texts


def is_consecutive(rows: RowNumbers) -> bool:
    """Whether each row is the one after the row before it: then they are a slice of a column."""
    return len(rows) > 0 and int(rows[-1]) - int(rows[0]) == len(rows) - 1 and bool((np.diff(rows) == 1).all())


def _vectors(by_part: list[_PartRows], count: int, dimension: int) -> bytes:
    """The embeddings, little-endian float32 [count, dimension]."""
    if len(by_part) == 1 and is_consecutive(by_part[0].rows):
        first = int(by_part[0].rows[0])
        return by_part[0].part.vectors[first : first + count].astype("<f4", copy=False).tobytes()
    found = np.empty((count, dimension), "<f4")
    for part, numbers, places in by_part:
        for at in range(0, len(numbers), READ_ROWS):
            work.check()
            found[places[at : at + READ_ROWS]] = part.vectors[numbers[at : at + READ_ROWS]]
    return found.tobytes()
