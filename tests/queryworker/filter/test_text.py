"""Literals and patterns in documents."""

from __future__ import annotations

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from queryworker.filter.text import containing, matching

_texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
_punctuation = st.text(r"ab \.+*?()|[]{}^$#&~-_/<>%" + "\n\t\x00\x0b\x0c\r", max_size=6)


@given(documents=st.lists(st.none() | _texts | _punctuation, max_size=8), text=_texts | _punctuation)
def test_a_literal_is_found_whatever_its_characters(documents: list[str | None], text: str) -> None:
    documents.append(f"x{text}y")
    expected = [document is not None and text in document for document in documents]
    assert containing(pa.array(documents, pa.string()), text).tolist() == expected
    assert containing(pa.array(documents, pa.large_string()), text).tolist() == expected


@pytest.mark.parametrize("length", [4096, 4097, 3_000_000])
def test_a_literal_may_be_as_long_as_a_document(length: int) -> None:
    text = "ab" * (length // 2) + "c" * (length % 2)
    assert containing(pa.array([text, f"-{text}-", text[1:], None]), text).tolist() == [True, True, False, False]


@pytest.mark.parametrize(("name", "value"), [("ROWS", 3), ("BYTES", 0), ("BYTES", 5), ("BYTES", 10**6)])
def test_a_pattern_is_searched_chunk_by_chunk(monkeypatch: pytest.MonkeyPatch, name: str, value: int) -> None:
    monkeypatch.setattr(f"queryworker.filter.text._CHUNK_{name}", value)
    documents = pa.array([None if i % 4 == 0 else str(i) for i in range(20)], pa.large_string())
    assert [i for i, hit in enumerate(matching(documents, "^1[13]?$")) if hit] == [1, 11, 13]


def test_a_slice_of_a_column_is_searched_by_itself() -> None:
    documents = pa.array(["a", "b", None, "a"]).slice(1)
    assert containing(documents, "a").tolist() == [False, False, True]
    assert matching(documents, "[a]").tolist() == [False, False, True]


@pytest.mark.parametrize("pattern", ["a", "", "a-b", "a b#c", "ä/<>&~'\"%@!,:;=_`"])
def test_a_pattern_without_operators_is_a_literal(pattern: str) -> None:
    documents = pa.array([pattern, f"x{pattern}y", "zzz", None])
    assert matching(documents, pattern).tolist() == matching(documents, f"(?:{pattern})").tolist()
