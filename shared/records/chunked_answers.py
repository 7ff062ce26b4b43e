"""The JSON body of the answer to a long get, written piece by piece while its client reads it.

Nothing but the piece that is being written is in memory: every range of every column is read when it is its turn. The
pieces together are byte for byte what `shared.records.answers.encode_get` writes at once:

```text
{"ids":[  a range, a range, ..  ],"embeddings":[  ..  ],"documents":[  ..  ],"uris":null,"metadatas":null, ..}
```
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, Final, Protocol

from shared.records.answers import encode_json, matrix, shown_metadatas
from shared.records.columns import Columns
from shared.records.include import Wanted
from shared.records.model import Include

CHUNK_NUMBERS: Final = 256 * 1024
"""How many numbers of embeddings a range has: some 8 ms of work, and 3 MiB, whose memory the C library keeps for the
next range.
"""

CHUNK_BYTES: Final = 1024 * 1024
"""Ranges of texts are chosen to have about so many bytes; pieces that are shorter are put together, up to this."""

FIRST_RANGE_ROWS: Final = 64
"""Rows of a column of texts that are read before it is known how long its texts are."""

GROWTH_MAX: Final = 8
"""A range of texts has at most so many times the rows of the one before: lengths may change along the column."""


class RowReader(Protocol):
    """The records of an answer, of which any range can be read."""

    @property
    def count(self) -> int:
        """How many there are."""

    @property
    def dimension(self) -> int:
        """Numbers of an embedding, 0 where there are no embeddings."""

    def read(self, begin: int, end: int, column: Include | None) -> Columns:
        """The `begin`-th to the `end`-th record (exclusive) with one column: ids for None, and uris too with
        metadatas.
        """


def get_chunks(rows: RowReader, wanted: Wanted) -> Iterator[bytes]:
    """The body of a get's answer in pieces, as `encode_get` describes it. Each is made when it is asked for."""
    waiting: list[bytes] = []
    size = 0
    for piece in _pieces(rows, wanted):
        waiting.append(piece)
        size += len(piece)
        if size >= CHUNK_BYTES:
            yield b"".join(waiting)
            waiting, size = [], 0
    if waiting:
        yield b"".join(waiting)


def _pieces(rows: RowReader, wanted: Wanted) -> Iterator[bytes]:
    yield b'{"ids":'
    yield from _texts(rows, None, lambda columns: columns.ids)
    yield b',"embeddings":'
    yield from _embeddings(rows) if wanted.embeddings else _NULL
    yield b',"documents":'
    yield from _texts(rows, Include.DOCUMENTS, lambda columns: columns.documents) if wanted.documents else _NULL
    yield b',"uris":'
    yield from _texts(rows, Include.URIS, lambda columns: columns.uris) if wanted.uris else _NULL
    yield b',"metadatas":'
    yield from _texts(rows, Include.METADATAS, shown_metadatas) if wanted.metadatas else _NULL
    yield b',"include":' + encode_json(wanted.given) + b"}"


_NULL: Final = (b"null",)


def _embeddings(rows: RowReader) -> Iterator[bytes]:
    step = max(1, CHUNK_NUMBERS // max(1, rows.dimension))
    separator = b"["
    for begin in range(0, rows.count, step):
        end = min(begin + step, rows.count)
        yield separator + _inner(matrix(rows.read(begin, end, Include.EMBEDDINGS).embeddings, end - begin))
        separator = b","
    yield b"]" if rows.count else b"[]"


def _texts(rows: RowReader, column: Include | None, values: Callable[[Columns], Any]) -> Iterator[bytes]:
    begin, step, separator = 0, FIRST_RANGE_ROWS, b"["
    while begin < rows.count:
        end = min(begin + step, rows.count)
        piece = _inner(values(rows.read(begin, end, column)))
        yield separator + piece
        step = next_range(end - begin, len(piece))
        begin, separator = end, b","
    yield b"]" if rows.count else b"[]"


def next_range(rows: int, size: int) -> int:
    """How many rows of a column of texts to read next, when the last `rows` of them took `size` bytes."""
    return max(1, min(GROWTH_MAX * rows, CHUNK_BYTES * rows // max(1, size)))


def _inner(values: Any) -> memoryview:
    """The elements of a list as they stand in its JSON, without the brackets."""
    return memoryview(encode_json(values))[1:-1]
