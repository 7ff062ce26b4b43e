"""What an expectation accepts, and above all what it does not."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.contract.matching import difference

UUID = "0b51ec1f-7c33-4b4e-9a6b-5c9a26c5a6c2"

ACCEPTED: list[tuple[Any, Any]] = [
    ("<any>", None),
    ("<any>", {"a": [1]}),
    ("<str>", ""),
    ("<int>", -1),
    ("<num>", 1),
    ("<num>", 0.5),
    ("<uuid>", UUID),
    ("<re:^Failed .*field>", "Failed to read\nthe field"),
    (1, 1.0),
    (1.0, 1),
    (0.1, 0.100001),
    (1e30, 1.00001e30),
    (0.0, 0.000009),
    ({"a": 1, "b": [None, True]}, {"b": [None, True], "a": 1}),
    ({"<unordered>": [1, "<str>", {"a": "<any>"}]}, [{"a": 0}, 1, "x"]),
    ({"metadatas": [{"k": 1, "f": 1.5}]}, {"metadatas": [{"k": 1, "f": 1.5}]}),
]

REFUSED: list[tuple[Any, Any]] = [
    ("<str>", None),
    ("<int>", 1.0),
    ("<int>", True),
    ("<num>", False),
    ("<num>", "1"),
    ("<uuid>", UUID.upper()),
    ("<uuid>", UUID + "\n"),
    ("<uuid>", 1),
    ("<re:^field>", "the field"),
    ("<re:field>", None),
    ("text", "Text"),
    ("1", 1),
    (None, False),
    (None, "null"),
    (True, 1),
    (1, True),
    (0, False),
    (0, None),
    (1, "1"),
    (1_000_000, 1_000_001),
    (1.0, 1.001),
    (0.0, 0.0001),
    ([], None),
    ([], {}),
    ([1, 2], [2, 1]),
    ([1], [1, 1]),
    ({}, []),
    ({}, {"a": None}),
    ({"a": None}, {}),
    ({"a": {"b": [1, {"c": 2}]}}, {"a": {"b": [1, {"c": 3}]}}),
    ({"<unordered>": [1, 1]}, [1, 2]),
    ({"<unordered>": [1]}, [1, 1]),
    ({"<unordered>": []}, {}),
    ({"metadata": {"k": 1}}, {"metadata": {"k": 1.0}}),
    ({"metadatas": [[{"k": {"values": [1.0]}}]]}, {"metadatas": [[{"k": {"values": [1]}}]]}),
    ({"metadatas": {"<unordered>": [{"k": 2.0}]}}, {"metadatas": [{"k": 2}]}),
]

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(alphabet="ab "),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(alphabet="ab"), inner, max_size=4),
    max_leaves=12,
)


@pytest.mark.parametrize(("expected", "answer"), ACCEPTED)
def test_an_answer_as_expected_is_accepted(expected: Any, answer: Any) -> None:
    assert difference(expected, answer) is None


@pytest.mark.parametrize(("expected", "answer"), REFUSED)
def test_an_answer_unlike_the_expected_one_is_refused(expected: Any, answer: Any) -> None:
    assert difference(expected, answer) is not None


@given(json_values)
def test_a_value_matches_itself_and_nothing_around_it(value: Any) -> None:
    assert difference(value, value) is None
    assert difference(value, [value]) is not None
    assert difference({"a": value}, {"a": value, "b": value}) is not None
    assert difference([value, "b"], [value, "c"]) is not None


def test_a_difference_names_its_place() -> None:
    found = difference({"ids": [["a"], ["b", "c"]]}, {"ids": [["a"], ["b", "d"]]})
    assert found == '$.ids[1][1]: expected "c", got "d"'
