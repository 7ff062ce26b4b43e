"""Set algebra over columns says the same as docs/wire.md, section 14, read record by record."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from queryworker.filter.evaluate import evaluate
from queryworker.filter.result import UNDECIDED_CLAUSES_MAX, concatenated
from shared.records.where import (
    All,
    AnyOf,
    ArrayContains,
    Compare,
    DocumentContains,
    DocumentRegex,
    IdIn,
    MetadataCompare,
    MetadataIn,
    Where,
)
from tests.queryworker.filter.columns import columns_of
from tests.queryworker.filter.scalar import Row, matches

BIG = 2**53
_ints = st.sampled_from([-(2**63), -BIG - 1, -1, 0, 1, 2, BIG - 1, BIG, BIG + 1, 2**63 - 1]) | st.integers(-3, 3)
_floats = st.sampled_from([-1e300, -1.0, -0.0, 0.0, 0.5, 1.0, 1.5, 2.0, float(BIG), float(BIG + 2), 2.0**63, 1e300])
_strings = st.sampled_from(["", "1", "a", "A", "é", "true", "a\x00", "\U0001f600"]) | st.text("ab", max_size=3)
_bools = st.booleans()
_scalars = _ints | _floats | _strings | _bools
_arrays = st.one_of([st.lists(of, min_size=1, max_size=4) for of in (_ints, _floats, _strings, _bools)])
_keys = st.sampled_from(["k", "m", "chroma:h", ""])
_metadata = st.none() | st.dictionaries(_keys, _scalars | _arrays, max_size=4)
_documents = st.none() | st.text("abAB1é \n", max_size=8)
_ids = st.text("abc", min_size=1, max_size=2)
_rows = st.lists(st.builds(Row, _ids, _documents, _metadata), max_size=12)

_patterns = [
    "",
    "a",
    "ab|b",
    "^a",
    "b$",
    "(?m)b$",
    "a.b",
    "(?s)a.b",
    "(?i)é",
    r"\d\b",
    r"\w+ ",
    "[^a]",
    r"\p{Lu}",
    "(a+)+$",
    "aab|bba",
    "(?i)abé?a",
    "(ab|é){2}",
]
_ordered = st.sampled_from([Compare.GT, Compare.GTE, Compare.LT, Compare.LTE])
_leaves: st.SearchStrategy[Where] = st.one_of(
    st.builds(MetadataCompare, _keys, st.sampled_from([Compare.EQ, Compare.NE]), _scalars),
    st.builds(MetadataCompare, _keys, _ordered, _ints | _floats),
    st.builds(MetadataIn, _keys, st.lists(_scalars, min_size=1, max_size=4), _bools),
    st.builds(ArrayContains, _keys, _scalars, _bools),
    st.builds(DocumentContains, st.text("abAé1\n", max_size=4), _bools),
    st.builds(DocumentRegex, st.sampled_from(_patterns), _bools),
    st.builds(IdIn, st.lists(_ids, max_size=3), _bools),
)


def _joined(clauses: st.SearchStrategy[Any]) -> st.SearchStrategy[Where]:
    return st.builds(All, st.lists(clauses, max_size=3)) | st.builds(AnyOf, st.lists(clauses, max_size=3))


_wheres: st.SearchStrategy[Where] = st.recursive(_leaves, _joined, max_leaves=6)


@settings(max_examples=400)
@given(rows=_rows, wheres=st.lists(_wheres, min_size=1, max_size=5), data=st.data())
def test_a_filter_result_says_what_the_contract_says(
    tmp_path_factory: pytest.TempPathFactory, rows: list[Row], wheres: list[Where], data: st.DataObject
) -> None:
    numbers = np.array(data.draw(st.permutations(range(len(rows)))), np.int64)
    asked = numbers[: data.draw(st.integers(0, len(rows)))]
    begin = data.draw(st.integers(0, len(rows)))
    end = data.draw(st.integers(begin, len(rows)))
    both = [columns_of(rows), columns_of(rows, tmp_path_factory.mktemp("part"))]
    for where in wheres:
        sent = msgspec.msgpack.decode(msgspec.msgpack.encode(where), type=Where)
        expected = np.array([matches(where, row) for row in rows], dtype=bool)
        for columns in both:
            result = evaluate(sent, columns)
            assert result.matching.dtype == result.candidates.dtype == np.bool_
            assert (result.matching <= expected).all()
            assert (expected <= result.candidates).all()
            assert result.resolve(asked).tolist() == expected[asked].tolist()
            between = result.slice(begin, end)
            assert between.resolve(np.arange(end - begin)).tolist() == expected[begin:end].tolist()
            pieces = [(0, result.slice(0, begin)), (begin, between), (end, result.slice(end, len(rows)))]
            again = concatenated([(start, piece) for start, piece in pieces if len(piece.candidates)])
            assert again.resolve(asked).tolist() == expected[asked].tolist()
            assert again.resolve_all().tolist() == result.resolve_all().tolist() == expected.tolist()
            assert result.resolved
            assert result.resolve(asked).tolist() == expected[asked].tolist()


_ROWS = [Row(f"i{i}", f"text {i}", {"n": i}) for i in range(100)]


@pytest.fixture
def read(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many documents each search for a literal read; it finds itself in all of them."""
    counts: list[int] = []

    def counting(documents: Any, _text: str) -> np.ndarray:
        counts.append(len(documents))
        return np.ones(len(documents), dtype=bool)

    monkeypatch.setattr("queryworker.filter.evaluate.containing", counting)
    return counts


def test_documents_are_read_only_where_the_cheap_clauses_left_rows(tmp_path: Path, read: list[int]) -> None:
    columns = columns_of(_ROWS, tmp_path)
    few = MetadataCompare("n", Compare.LT, 3)
    assert evaluate(All([DocumentContains("text"), few]), columns).resolve_all().sum() == 3
    assert (
        evaluate(All([DocumentContains("text"), MetadataCompare("n", Compare.LT, 0)]), columns).resolve_all().sum() == 0
    )
    assert (
        evaluate(AnyOf([DocumentContains("text"), MetadataCompare("n", Compare.GTE, 3)]), columns).resolve_all().sum()
        == 100
    )
    assert [count for count in read if count] == [3, 3]


def test_documents_that_the_text_index_excludes_are_not_read(tmp_path: Path, read: list[int]) -> None:
    where = AnyOf([DocumentContains("ext 42"), DocumentContains("nowhere")])
    assert np.flatnonzero(evaluate(where, columns_of(_ROWS, tmp_path)).resolve_all()).tolist() == [42]
    assert [count for count in read if count] == [1]


def test_a_filter_without_clauses_about_documents_leaves_no_row_undecided(tmp_path: Path) -> None:
    columns = columns_of(_ROWS, tmp_path)
    few = MetadataCompare("n", Compare.LT, 3)
    assert evaluate(AnyOf([few, All([MetadataCompare("n", Compare.NE, 5), IdIn(["i7"])])]), columns).resolved
    assert not evaluate(AnyOf([few, DocumentContains("text")]), columns).resolved


def test_an_order_operator_on_a_string_is_a_programming_error(tmp_path: Path) -> None:
    with pytest.raises(TypeError, match="takes a number"):
        evaluate(MetadataCompare("k", Compare.GT, "a"), columns_of([], tmp_path))


@pytest.mark.parametrize("join", [All, AnyOf])
def test_few_clauses_are_left_undecided_however_many_there_are(tmp_path: Path, join: Any) -> None:
    columns = columns_of(_ROWS, tmp_path)
    clauses = [DocumentContains(f"ext {i}", join is All) for i in range(40)]
    result = evaluate(join([join(clauses[begin : begin + 10]) for begin in range(0, 40, 10)]), columns)
    assert 0 < result.undecided_clauses <= UNDECIDED_CLAUSES_MAX
    hit = {row for row in range(100) if any(f"ext {i}" in f"text {row}" for i in range(40))}
    assert set(np.flatnonzero(result.resolve_all())) == (set(range(100)) - hit if join is All else hit)
    assert result.undecided_clauses == 0
