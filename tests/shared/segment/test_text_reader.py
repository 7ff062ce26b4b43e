"""Columns of text, read row by row."""

import numpy as np
import pyarrow as pa
import pytest

from shared.segment.text_reader import ONE_BY_ONE_MAX, TextReader

WORDS = ["", "a", "zwölf", "漢字", "\U0001f40d" * 3, 'quoted "text"\\', "x" * 5000]
TEXTS: list[str | None] = [None if i % 7 == 3 else WORDS[i % len(WORDS)] + str(i) * (i % 3) for i in range(300)]


@pytest.mark.parametrize("texts", [TEXTS, [text or "" for text in TEXTS]], ids=["with nulls", "without"])
@pytest.mark.parametrize("offset", [0, 5, 64])
def test_any_rows_in_any_order(texts: list[str | None], offset: int) -> None:
    column = TextReader(pa.array(texts, pa.large_string()).slice(offset))
    random = np.random.default_rng(1)
    here = texts[offset:]
    for count in (0, 1, 10, ONE_BY_ONE_MAX, ONE_BY_ONE_MAX + 1, 200):
        rows = random.integers(0, len(here), count)
        assert column.read(rows) == [here[row] for row in rows]
    for stretch in (np.arange(3), np.arange(20, 20 + 2 * ONE_BY_ONE_MAX)):
        assert column.read(stretch) == [here[row] for row in stretch]


def test_a_column_without_any_text() -> None:
    for texts in ([None, None], ["", ""]):
        assert TextReader(pa.array(texts, pa.large_string())).read(np.array([1, 0])) == texts
    assert TextReader(pa.nulls(2, pa.large_string())).read(np.array([1, 0])) == [None, None]
