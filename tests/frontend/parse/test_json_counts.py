import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from frontend.parse import json_counts
from frontend.parse.json_counts import JsonCounts, check_counts, exact_counts, upper_bounds
from frontend.request_limits import RequestLimits
from shared.errors import LimitExceeded

TEXTS = st.text(st.sampled_from('ab\\"[]{}:, \u00e9'), max_size=12)
TREES = st.recursive(
    TEXTS | st.integers() | st.none(),
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(TEXTS, inner, max_size=5),
    max_leaves=30,
)


def counted(tree: Any) -> JsonCounts:
    """By walking through the tree."""
    if isinstance(tree, dict):
        own, children = JsonCounts(1, len(tree), max(len(tree) - 1, 0)), list(tree.values())
    elif isinstance(tree, list):
        own, children = JsonCounts(1, 0, max(len(tree) - 1, 0)), tree
    else:
        return JsonCounts(0, 0, 0)
    for child in children:
        own += counted(child)
    return own


@given(TREES, st.integers(1, 7))
def test_brackets_and_quotes_in_strings_do_not_count_wherever_a_slice_ends(tree: Any, slice_bytes: int) -> None:
    data = json.dumps(tree, ensure_ascii=False).encode()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(json_counts, "SLICE_BYTES", slice_bytes)
        assert exact_counts(data) == counted(tree)
        assert all(bound >= count for bound, count in zip(upper_bounds(data), counted(tree), strict=True))


LIMITS = RequestLimits(json_containers_max=10, json_members_max=10, json_values_max=20)


@pytest.mark.parametrize(
    ("data", "refusal"),
    [
        (b'{"a":[' + b",".join([b"{}"] * 9) + b"]}", "11 objects and arrays, at most 10"),
        (b'{"a":[' + b",".join([b"[]"] * 9) + b"]}", "11 objects and arrays, at most 10"),
        (b"{" + b",".join(b'"%d":1' % i for i in range(11)) + b"}", "11 members of objects, at most 10"),
        (b"[" + b",".join([b"1"] * 22) + b"]", "21 values, at most 20"),
    ],
)
def test_a_text_with_more_than_the_limit_is_refused_with_limit_value_and_where(data: bytes, refusal: str) -> None:
    with pytest.raises(LimitExceeded, match="Limit exceeded: request body: ") as caught:
        check_counts(data, LIMITS)
    assert refusal in caught.value.message


@pytest.mark.parametrize(
    "data",
    [
        b'{"a":[' + b",".join([b"{}"] * 8) + b"]}",
        b"[" + b",".join([b"1"] * 21) + b"]",
        json.dumps(["[[[[[[[[[[[[{{{{{::::::::::::,,,,,,,,,,,,,,,,,,,,,,,"]).encode(),
    ],
)
def test_a_text_at_the_limit_and_brackets_in_a_string_pass(data: bytes) -> None:
    check_counts(data, LIMITS)


def test_a_text_of_many_parts_is_to_be_parsed_in_pieces() -> None:
    limits = RequestLimits()
    assert check_counts(b"[" + b"{}," * (json_counts.PARTS_MANY + 1) + b"1]", limits)
    assert not check_counts(b"[" + b"{}," * (json_counts.PARTS_MANY - 1) + b"1]", limits)
    assert not check_counts(b"[" + b"0.5," * 1_000_000 + b"1]", limits)
