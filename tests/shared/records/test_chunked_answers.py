"""A long get's answer, written piece by piece."""

from __future__ import annotations

import json
import random
from itertools import pairwise

import numpy as np
import pytest

from shared.records import chunked_answers
from shared.records.answers import encode_get
from shared.records.chunked_answers import CHUNK_BYTES, GROWTH_MAX, get_chunks, next_range
from shared.records.columns import Columns
from shared.records.include import Wanted
from shared.records.model import Include

DIMENSION = 3
COLUMNS = [Include.EMBEDDINGS, Include.DOCUMENTS, Include.METADATAS, Include.URIS]


class Rows:
    """Rows of given columns. `read_ranges`: what was read of them, in order."""

    def __init__(self, columns: Columns) -> None:
        self._columns = columns
        self.count = len(columns.ids)
        self.dimension = columns.dimension
        self.read_ranges: list[tuple[Include | None, int, int]] = []

    def read(self, begin: int, end: int, column: Include | None) -> Columns:
        self.read_ranges.append((column, begin, end))
        whole, width = self._columns, 4 * self.dimension
        return Columns(
            ids=whole.ids[begin:end] if column is None else [],
            documents=(whole.documents or [])[begin:end] if column is Include.DOCUMENTS else None,
            metadatas=(whole.metadatas or [])[begin:end] if column is Include.METADATAS else None,
            uris=(whole.uris or [])[begin:end] if column in (Include.URIS, Include.METADATAS) else None,
            embeddings=(whole.embeddings or b"")[width * begin : width * end] if column is Include.EMBEDDINGS else None,
            dimension=self.dimension,
        )


def _columns(count: int, text_length: int = 20) -> Columns:
    random_ = random.Random(count)
    text = ["x" * random_.randrange(2 * text_length) for _ in range(count)]
    return Columns(
        ids=[f"id {i}" for i in range(count)],
        documents=[None if i % 5 == 0 else text[i] + "\u2028é" for i in range(count)],
        metadatas=[None if i % 3 == 0 else json.dumps({"n": i, "chroma:hidden": 1}) for i in range(count)],
        uris=[None if i % 2 else f"u://{i}" for i in range(count)],
        embeddings=np.random.default_rng(0).standard_normal((count, DIMENSION)).astype("<f4").tobytes(),
        dimension=DIMENSION,
    )


@pytest.mark.parametrize("count", [0, 1, 63, 64, 65, 1000])
@pytest.mark.parametrize("include", [[], COLUMNS, [Include.DOCUMENTS], [Include.METADATAS, Include.DISTANCES]])
def test_the_pieces_are_together_what_is_written_at_once(
    count: int, include: list[Include], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(chunked_answers, "CHUNK_NUMBERS", 40 * DIMENSION)
    monkeypatch.setattr(chunked_answers, "CHUNK_BYTES", 1000)
    columns, wanted = _columns(count), Wanted(include)
    assert b"".join(get_chunks(Rows(columns), wanted)) == encode_get(columns, wanted)


def test_a_piece_is_read_when_it_is_asked_for_and_none_is_much_longer_than_it_should_be() -> None:
    rows = Rows(_columns(3000, text_length=5000))
    lengths: list[int] = []
    rows_read: list[int] = []
    for piece in get_chunks(rows, Wanted([Include.DOCUMENTS])):
        lengths.append(len(piece))
        rows_read.append(sum(end - begin for column, begin, end in rows.read_ranges if column is Include.DOCUMENTS))
    assert max(lengths) < 3 * CHUNK_BYTES
    assert rows_read[0] < rows.count / 5
    assert all(before < after for before, after in pairwise(rows_read[:-1]))
    assert rows_read[-1] == rows.count


def test_short_pieces_are_put_together() -> None:
    assert len(list(get_chunks(Rows(_columns(1000)), Wanted(COLUMNS)))) == 1


@pytest.mark.parametrize(
    ("rows", "size", "expected"),
    [
        (64, 64, 64 * GROWTH_MAX),
        (64, CHUNK_BYTES, 64),
        (64, 4 * CHUNK_BYTES, 16),
        (1, 100 * CHUNK_BYTES, 1),
        (10, 0, 10 * GROWTH_MAX),
    ],
)
def test_ranges_of_texts_follow_the_lengths_of_the_texts(rows: int, size: int, expected: int) -> None:
    assert next_range(rows, size) == expected
