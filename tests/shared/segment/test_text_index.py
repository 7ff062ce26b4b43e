"""The text index never misses a document, and excludes most of the others."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.errors import Corrupt
from shared.segment import text_index
from shared.segment.text_index import TextIndex, write_text_index

_texts = st.text("abAB é\U0001f600\x00", max_size=12) | st.text(st.characters(exclude_categories=["Cs"]), max_size=12)


def written(path: Path, documents: list[str | None]) -> TextIndex:
    write_text_index(path, pa.array(documents, pa.large_string()))
    return TextIndex(path)


@given(documents=st.lists(st.none() | _texts, min_size=1, max_size=10), literal=_texts, data=st.data())
def test_every_document_with_the_literal_is_a_candidate(
    tmp_path_factory: pytest.TempPathFactory, documents: list[str | None], literal: str, data: st.DataObject
) -> None:
    source = data.draw(st.sampled_from([text for text in documents if text] or ["abc"]))
    begin = data.draw(st.integers(0, len(source) - 1))
    literals = [literal, source, source[begin:], source[begin : begin + 3]]
    index = written(tmp_path_factory.mktemp("text") / "text.index", documents)
    for wanted in literals:
        found = index.candidates(wanted)
        if len(wanted.encode()) < 3:
            assert found is None
        else:
            assert found is not None
            having = {i for i, text in enumerate(documents) if text is not None and wanted in text}
            assert having <= set(found)


def test_the_case_of_ascii_letters_does_not_matter(tmp_path: Path) -> None:
    index = written(tmp_path / "text.index", ["PostgreSQL", "postgresql", "POSTGRES", "Ünïcode", "üNÏCODE"])
    assert list(index.candidates("pOSTGREsql") or []) == [0, 1]
    assert list(index.candidates("Ünïcode") or []) == [3]


def test_trigrams_do_not_reach_over_the_end_of_a_document(tmp_path: Path) -> None:
    index = written(tmp_path / "text.index", ["xab", "", None, "c", "abcx", "b", "c"])
    assert list(index.candidates("abc") or []) == [4]


@pytest.mark.parametrize(("sorted_bytes", "block_bytes"), [(1, 1), (40, 40), (40, 400), (1 << 20, 300)])
def test_a_column_that_is_built_in_pieces_has_the_same_index(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, sorted_bytes: int, block_bytes: int
) -> None:
    documents = [None if i % 7 == 0 else f"document {i} of {i % 13} kinds" * (i % 3) for i in range(200)]
    written(tmp_path / "whole", documents)
    monkeypatch.setattr(text_index, "_SORTED_BYTES", sorted_bytes)
    monkeypatch.setattr(text_index, "_BLOCK_BYTES", block_bytes)
    index = written(tmp_path / "pieces", documents)
    assert (tmp_path / "pieces").read_bytes() == (tmp_path / "whole").read_bytes()
    assert list(index.candidates("document 110") or []) == [110]


def test_a_slice_of_a_column_is_indexed_by_itself(tmp_path: Path) -> None:
    column = pa.array(["alpha", "beta", "gamma", "alphabet"], pa.large_string()).slice(1, 3)
    write_text_index(tmp_path / "text.index", column)
    assert list(TextIndex(tmp_path / "text.index").candidates("alpha") or []) == [2]


def test_a_long_literal_excludes_documents_that_lack_a_part_of_it(tmp_path: Path) -> None:
    long = " ".join(f"word{i}" for i in range(200))
    index = written(tmp_path / "text.index", [long, long[: len(long) // 2], long + "!"])
    assert list(index.candidates(long) or []) == [0, 2]


def test_checks_are_made_while_it_is_built(tmp_path: Path) -> None:
    def check() -> None:
        raise TimeoutError

    with pytest.raises(TimeoutError):
        write_text_index(tmp_path / "text.index", pa.array(["abc"], pa.large_string()), check=check)


@pytest.mark.parametrize("damage", [lambda b: b[:20], lambda b: b[:-1], lambda b: b"x" + b[1:], lambda b: b + b"x"])
def test_a_file_that_is_no_text_index_is_refused(tmp_path: Path, damage: Callable[[bytes], bytes]) -> None:
    path = tmp_path / "text.index"
    written(path, ["some text", "more text"])
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(Corrupt):
        TextIndex(path)


@pytest.mark.parametrize("indexed", [0, 1, 120, 199, 200])
def test_an_index_that_is_extended_is_the_same_as_one_built_at_once(tmp_path: Path, indexed: int) -> None:
    documents = [None if i % 7 == 0 else f"document {i} of {i % 13} kinds" for i in range(200)]
    whole = written(tmp_path / "whole", documents)
    written(tmp_path / "base", documents[:indexed])
    write_text_index(tmp_path / "extended", pa.array(documents, pa.large_string()), tmp_path / "base")
    assert TextIndex(tmp_path / "extended").bitmaps() == whole.bitmaps()


def test_a_base_of_more_rows_is_none(tmp_path: Path) -> None:
    written(tmp_path / "base", ["a", "b"])
    with pytest.raises(ValueError, match="2 rows"):
        write_text_index(tmp_path / "text.index", pa.array(["a"], pa.large_string()), tmp_path / "base")
