"""What a pattern is said to require is met by every document that the engine finds it in."""

from __future__ import annotations

import random
import re

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from queryworker.filter.literals import AllRequired, AnyRequired, RequiredText, Requirement
from queryworker.filter.pattern_parser import required_texts
from shared.errors import InvalidArgument
from shared.records.regex import compile_regex


def _folded(text: str) -> str:
    return "".join(char.lower() if char.isascii() else char for char in text)


def met(need: Requirement | None, document: str) -> bool:
    match need:
        case None:
            return True
        case RequiredText(text):
            return _folded(text) in _folded(document)
        case AllRequired(needs):
            return all(met(part, document) for part in needs)
        case AnyRequired(needs):
            return any(met(part, document) for part in needs)


@pytest.mark.parametrize(
    ("pattern", "need"),
    [
        ("editor", RequiredText("editor")),
        (r"\bgtk\d+", RequiredText("gtk")),
        ("foo.*bar", AllRequired((RequiredText("foo"), RequiredText("bar")))),
        ("foo|bar", AnyRequired((RequiredText("bar"), RequiredText("foo")))),
        ("colou?r", AnyRequired((RequiredText("color"), RequiredText("colour")))),
        (r"\bword(s|ed|er)?\b", RequiredText("word")),
        ("(?:lib|py)x-[ab]", AnyRequired(tuple(map(RequiredText, ["libx-a", "libx-b", "pyx-a", "pyx-b"])))),
        ("(foo.|bar.)x", AnyRequired((RequiredText("foo"), RequiredText("bar")))),
        ("(abc)+d", RequiredText("abc")),
        ("(?:ab){2}c", RequiredText("ababc")),
        ("x{3,}", RequiredText("xxx")),
        ("^abc$", RequiredText("abc")),
        (r"a\.b\x41\u{42}\tC", RequiredText("a.bAB\tC")),
        ("(?i)Abd", RequiredText("abd")),
        ("(?i)ask", AnyRequired(tuple(map(RequiredText, ["ask", "as\u212a", "a\u017fk", "a\u017f\u212a"])))),
        ("a(?i)Bd|EFG", AnyRequired((RequiredText("abd"), RequiredText("efg")))),
        ("(?i:ABD)EFG", RequiredText("abdEFG")),
        ("(?P<name>abc)(?<n>d)", RequiredText("abcd")),
        ("größe", RequiredText("größe")),
        ("[a-z]+word[0-9]{2}", RequiredText("word")),
    ],
)
def test_literals_are_found_through_the_operators(pattern: str, need: Requirement) -> None:
    assert required_texts(pattern) == need


@pytest.mark.parametrize(
    "pattern",
    [
        "", "ab", "a|bcd", "abc|", "(abc)*", "(abc)?", ".*", "[0-9]{4}", r"\w+\s", "(?x)abc", "(?x:a b c)", "[[a]]bcd",
        "[a&&b]cde", "[]a]bcd", "(?i)é", r"\p{Greek}", "(abc){0}", "a[^b]c",
    ],
)  # fmt: skip
def test_where_nothing_is_sure_nothing_is_required(pattern: str) -> None:
    assert required_texts(pattern) is None


def test_a_pattern_of_very_many_words_requires_none_of_them() -> None:
    assert required_texts("|".join(f"word{i}." for i in range(200))) is not None
    assert required_texts("|".join(f"word{i}." for i in range(300))) is None


def test_depth_is_bounded() -> None:
    assert required_texts("(" * 200 + "abc" + ")" * 200) is None


_chars = "aAbBkKsS1 -.é\u212a\u017fß"
_literals = st.text(_chars, min_size=1, max_size=4).map(lambda text: (re.escape(text), text))
_classes = st.sampled_from(
    [("[ab]", "b"), ("[^a]", "s"), ("[a-c]", "c"), (r"[\d.]", "1"), (r"\w", "k"), (".", "é"), (r"\x61", "a"),
     (r"\pL", "K"), (r"[-a]", "-"), (r"[\]b]", "]"), ("[a-]", "-"), (r"\u212A", "\u212a"), ("[s-t]", "s"), (r"\s", " ")]
)  # fmt: skip
_empty = st.sampled_from([("^", ""), ("$", ""), (r"\b", ""), (r"\B", ""), ("(?i)", ""), ("(?s-i)", ""), ("", "")])
_flags = st.sampled_from(["", "?:", "?i:", "?-i:", "?s:", "?P<n{}>", "?<n{}>", "?m-s:", "?U:"])
_counts = st.sampled_from(
    [("*", 0), ("*", 2), ("+", 1), ("+?", 3), ("?", 0), ("??", 1), ("{2}", 2), ("{1,3}", 2), ("{0,1}", 0), ("{2,}?", 3)]
)

_numbers = iter(range(10**9))


@st.composite
def _patterns(draw: st.DrawFn, depth: int = 3) -> tuple[str, str]:
    """A pattern, and a text that it would match if it were not for anchors and flags."""
    kinds = ["literal", "class", "empty"] + ["group", "either", "repeated", "sequence", "sequence"] * (depth > 0)
    kind = draw(st.sampled_from(kinds))
    if kind in ("literal", "class", "empty"):
        made: tuple[str, str] = draw({"literal": _literals, "class": _classes, "empty": _empty}[kind])
        return made
    one = draw(_patterns(depth - 1))
    if kind == "group":
        flags = draw(_flags).format(next(_numbers))
        return f"({flags}{one[0]})", one[1]
    if kind == "repeated":
        sign, times = draw(_counts)
        return f"(?:{one[0]}){sign}", one[1] * times
    other = draw(_patterns(depth - 1))
    if kind == "either":
        return f"(?:{one[0]}|{other[0]})", draw(st.sampled_from([one[1], other[1]]))
    return one[0] + other[0], one[1] + other[1]


@settings(max_examples=1500)
@given(made=_patterns(), around=st.tuples(st.text(_chars, max_size=3), st.text(_chars, max_size=3)), swap=st.booleans())
def test_every_match_meets_the_requirement(made: tuple[str, str], around: tuple[str, str], swap: bool) -> None:
    pattern, text = made
    try:
        engine = compile_regex(pattern)
    except InvalidArgument:
        assume(False)
    text = text.swapcase() if swap else text
    for document in (text, around[0] + text + around[1], around[0]):
        if engine.matches(document):
            assert met(required_texts(pattern), document)


def test_random_strings_of_syntax_never_exclude_a_match() -> None:
    made = random.Random(5)
    pieces = [*"ab.k[](){}|*+?^$\\-&1i:,x", "(?i)", "(?:", "(?P<n>", "[^", "[a-", "{2}", "{1,", r"\b", r"\x{61}", "abc"]
    compiled = 0
    for _ in range(30_000):
        pattern = "".join(made.choices(pieces, k=made.randint(1, 9)))
        try:
            engine = compile_regex(pattern)
        except InvalidArgument:
            continue
        compiled += 1
        need = required_texts(pattern)
        if need is not None:
            for _ in range(10):
                document = "".join(made.choices("abkK1i:x-&,AB\u212a]}", k=made.randint(0, 8)))
                for text in (document, pattern + document, document + "abc" + document, "aabab" + document):
                    assert not engine.matches(text) or met(need, text), (pattern, text)
    assert compiled > 5_000
