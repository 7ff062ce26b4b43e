"""The syntax, meaning, refusals and linear time of the Rust regex crate."""

from __future__ import annotations

import time

import pytest

from shared.errors import InvalidArgument
from shared.limits import REGEX_BYTES_MAX
from shared.records.regex import compile_regex


@pytest.mark.parametrize(
    ("pattern", "text", "found"),
    [
        ("", "", True),
        ("b[ea]", "a bed", True),
        ("^one", "two one", False),
        ("(?m)^one", "two\none", True),
        ("bool.new", "bool\nnew", False),
        ("(?s)bool.new", "bool\nnew", True),
        ("a$", "a\n", False),  # unlike Python and Perl
        (r"\d", "\u0663", True),  # digits, words and boundaries are Unicode's
        (r"(?-u:\d)", "\u0663", False),
        (r"^\w+$", "größe_\u0300", True),
        (r"\bé", "caé", False),
        (r"\bé", "ca é", True),
        (r"\s", "\u2003", True),
        ("(?i)STRASSE", "straße", False),  # simple folding only
        ("(?i)Σ", "ς", True),
        ("(?i)k", "\u212a", True),
        (r"\p{Greek}", "\u03b1", True),
        (r"^\P{L}$", "\u03b1", False),
        (r"[\p{L}&&[^a]]", "a", False),
        (r"[a-c--b]", "b", False),
        ("[[:alpha:]]", "é", False),
        (r"\x{1F600}", "\U0001f600", True),
        ("^.$", "\U0001f600", True),
        ("(?x) a b # c", "ab", True),
        ("(?<n>a)(?P<m>b)", "ab", True),
        (r"a{2,3}?b", "aab", True),
        (r"\b{start}a", "ba", False),
    ],
)
def test_patterns_mean_what_they_mean_in_rust(pattern: str, text: str, found: bool) -> None:
    assert compile_regex(pattern).matches(text) is found


@pytest.mark.parametrize(
    "pattern",
    [
        "(", ")", "[", "[z-a]", "*", "a**b(", "a{2,1}", "a{,5}", r"(a)\1", "(?=a)", "(?!a)", "(?<=a)b", "(?>a)",
        r"\Z", r"\Q", "\\", r"\p{Nope}", "(?P<n>a)(?P<n>b)", "(?a)a", r"(?-u)\xff", r"\u{110000}",
        "a{1000}{1000}{1000}",
        "(" * 1000 + ")" * 1000,
    ],
)  # fmt: skip
def test_what_rust_refuses_is_refused_in_the_contracts_words(pattern: str) -> None:
    with pytest.raises(InvalidArgument) as refused:
        compile_regex(pattern)
    prefix, _, reason = refused.value.message.partition("Regex syntax errror: ")
    assert prefix == ""
    assert reason
    assert "SchemaError" not in refused.value.message


def test_the_reason_is_the_crates_own() -> None:
    with pytest.raises(InvalidArgument, match="look-around, including look-ahead and look-behind, is not supported"):
        compile_regex("a(?=b)")


def test_a_pattern_over_the_limit_is_refused_before_it_is_parsed() -> None:
    assert compile_regex("é" * (REGEX_BYTES_MAX // 2)).matches("e") is False
    with pytest.raises(InvalidArgument, match="Regex syntax errror: pattern is longer than"):
        compile_regex("é" * (REGEX_BYTES_MAX // 2) + "e")


@pytest.mark.parametrize("pattern", ["(a+)+$", "(a|a)*b", "(a|aa)+$", "(.*)(.*)(.*)(.*)(.*)x"])
def test_patterns_that_explode_elsewhere_take_linear_time(pattern: str) -> None:
    matches = compile_regex(pattern).matches
    began = time.process_time()
    matches("a" * 200_000 + "!")
    assert time.process_time() - began < 5.0  # a backtracking engine would not finish at all
