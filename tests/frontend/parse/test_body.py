from __future__ import annotations

import json
import time
from collections.abc import Callable
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from frontend.parse.json_text import _count_names, parse
from frontend.parse.sliced_json import DEPTH_MAX
from shared.errors import MalformedBody, WrongShape

SCALARS = st.none() | st.booleans() | st.integers(-(2**40), 2**40) | st.floats(allow_nan=False, allow_infinity=False)
TEXTS = st.text(alphabet='ab":\\ \n{},[]é', max_size=6)
TREES = st.recursive(
    SCALARS | TEXTS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXTS, inner, max_size=4),
    max_leaves=12,
)


@given(TREES, st.sampled_from([None, 1]))
def test_a_tree_without_repeated_members_comes_back(tree: Any, indent: int | None) -> None:
    assert parse(json.dumps(tree, indent=indent).encode()) == tree
    assert parse(orjson.dumps(tree)) == tree


@given(TREES, TREES, TEXTS, st.sampled_from([":", " :", "\n:"]))
def test_a_repeated_member_is_found_wherever_it_hides(first: Any, second: Any, name: str, colon: str) -> None:
    member = json.dumps(name) + colon
    repeated = f"{{{member}{json.dumps(first)},{member}{json.dumps(second)}}}"
    for text in (repeated, f"[1,{repeated}]", f"[null,{repeated}]", f'{{"x" :1,"y":[[{repeated}]]}}'):
        with pytest.raises(WrongShape, match=r"^Failed to deserialize the JSON body into the target type: duplicate"):
            parse(text.encode())


@pytest.mark.parametrize(
    "text",
    [
        rb'{"a\\":1,"b":1,"b":2}',
        rb'{"a":"\":","b":1,"b":2}',
        rb'{"a" :1,"b":1,"b":2}',
        rb'{"\u0061":1,"a":2}',
        rb'[1.5,{"a":1,"a":2}]',
        rb'["\\",{"a":1,"a":2}]',
        rb'{"a\\\\":1,"a\\\\":2}',
        rb'{"a\\\":":1,"b":"\\\\\"","b":2}',
    ],
)
def test_counting_is_not_fooled_by_quotes_blanks_and_escapes(text: bytes) -> None:
    with pytest.raises(WrongShape):
        parse(text)


@pytest.mark.parametrize(
    "text", [b"", b"{", b"[1,]", b"{} x", b"NaN", b"[1e400]", b'"\xff"', b'"\\ud800"', b"\xef\xbb\xbf{}", b"'a'"]
)
def test_what_is_not_json_is_malformed(text: bytes) -> None:
    with pytest.raises(MalformedBody, match=r"^Failed to parse the request body as JSON: "):
        parse(text)


def test_depth_is_limited_and_deep_bodies_are_no_crash() -> None:
    assert parse(b"[" * DEPTH_MAX + b"]" * DEPTH_MAX) is not None
    for depth in (DEPTH_MAX + 2, 1_000, 100_000):
        with pytest.raises(MalformedBody):
            parse(b"[" * depth + b"]" * depth)
        with pytest.raises(MalformedBody):
            parse(b'{"a" :' * depth + b"1" + b"}" * depth)


def test_integers_beyond_64_bits_become_floats() -> None:
    assert parse(b"[18446744073709551616, -9223372036854775809]") == [2.0**64, -(2.0**63)]


def test_the_exact_parse_takes_numbers_of_any_length() -> None:
    assert parse(b'{"a" : 0.' + b"1" * 6000 + b"}")["a"] == pytest.approx(1 / 9)


@given(st.text(alphabet='\\":a ', max_size=12), st.integers(0, 3))
def test_long_texts_are_counted_in_columns_as_short_ones_are(name: str, others: int) -> None:
    tree = {name: name, "list": [{f"{name}{number}": name} for number in range(others)], "long": ["x"] * 10_000}
    text = orjson.dumps(tree)
    assert _count_names(text) == 3 + others - (name in ("list", "long"))


def _processor_s(work: Callable[[bytes], object], body: bytes) -> float:
    """Processor time of this thread that the work takes, in seconds: the least of some tries."""
    taken_s = []
    for _ in range(5):
        began_s = time.thread_time()
        work(body)
        taken_s.append(time.thread_time() - began_s)
    return min(taken_s)


def test_a_large_body_of_vectors_costs_little_more_than_its_parse() -> None:
    body = orjson.dumps({"ids": ["a"] * 2000, "embeddings": [[0.123456] * 384] * 2000})
    assert _processor_s(parse, body) < 5 * _processor_s(orjson.loads, body)
