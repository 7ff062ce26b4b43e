"""From rows of a view to the columns of an answer, column by column."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, NamedTuple

import numpy as np

from queryworker.view.part import ViewPart
from queryworker.view.read_view import ReadView
from shared.records.columns import Columns
from shared.vectors.arrays import Indices, Positions, RowNumbers

FLOAT_BYTES: Final = 12
"""Of a number of an embedding in JSON."""


class Filled(NamedTuple):
    """Which columns are filled."""

    ids: bool
    documents: bool
    metadatas: bool
    uris: bool
    embeddings: bool


class _Share(NamedTuple):
    """The rows of an answer that come from one part, and their places in it."""

    part: ViewPart
    rows: RowNumbers
    places: Indices


def assemble(view: ReadView, parts: Indices, rows: RowNumbers, wanted: Filled) -> tuple[Positions, Columns]:
    """Positions of insertion and columns of the rows `rows` of the parts `parts` (parallel), in that order."""
    count = len(rows)
    shares = _shares(view, parts, rows)

    def text(column: str) -> list[Any]:
        return _texts(shares, count, lambda share: share.part.texts(column, share.rows))

    dimension = view.dimension or 0
    inserted = np.empty(count, np.int64)
    for share in shares:
        inserted[share.places] = share.part.inserted[share.rows]
    columns = Columns(
        ids=text("id") if wanted.ids else [],
        documents=text("document") if wanted.documents else None,
        metadatas=text("metadata") if wanted.metadatas else None,
        uris=text("uri") if wanted.uris else None,
        embeddings=_vectors(shares, count, dimension) if wanted.embeddings else None,
        dimension=dimension,
    )
    return inserted, columns


def encoded_bytes(view: ReadView, parts: Indices, rows: RowNumbers, wanted: Filled) -> int:
    """About how long an answer with these rows is. Reads none of what it counts."""
    columns = (("document", wanted.documents), ("metadata", wanted.metadatas), ("uri", wanted.uris))
    found = len(rows) * (view.dimension or 0) * FLOAT_BYTES if wanted.embeddings else 0
    for share in _shares(view, parts, rows):
        found += sum(share.part.text_bytes(column, share.rows) for column, is_wanted in columns if is_wanted)
    return found


def written_at(view: ReadView, parts: Indices, rows: RowNumbers) -> Positions:
    """Positions at which these rows were changed last."""
    written = np.empty(len(rows), np.int64)
    for share in _shares(view, parts, rows):
        written[share.places] = share.part.written[share.rows]
    return written


def _shares(view: ReadView, parts: Indices, rows: RowNumbers) -> list[_Share]:
    numbers = sorted(set(parts.tolist()))
    if len(numbers) == 1:
        return [_Share(view.parts[numbers[0]], rows, np.arange(len(rows)))]
    return [
        _Share(view.parts[number], rows[places], places)
        for number in numbers
        for places in [np.flatnonzero(parts == number)]
    ]


def _texts(shares: list[_Share], count: int, read: Callable[[_Share], list[str | None]]) -> list[str | None]:
    if len(shares) == 1:
        return read(shares[0])
    found = np.empty(count, object)
    for share in shares:
        found[share.places] = read(share)
    texts: list[str | None] = found.tolist()
    return texts


def is_run(rows: RowNumbers) -> bool:
    """Whether each row follows the one before it: then they are a slice."""
    return len(rows) > 0 and int(rows[-1]) - int(rows[0]) == len(rows) - 1 and bool((np.diff(rows) == 1).all())


def _vectors(shares: list[_Share], count: int, dimension: int) -> bytes:
    if len(shares) == 1 and is_run(shares[0].rows):
        first = int(shares[0].rows[0])
        return shares[0].part.vectors[first : first + count].astype("<f4", copy=False).tobytes()
    found = np.empty((count, dimension), "<f4")
    for share in shares:
        found[share.places] = share.part.vectors[share.rows]
    return found.tobytes()
