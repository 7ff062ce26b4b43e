"""Reads a regular expression in the syntax of Rust's `regex` crate, as far as it takes to know which texts it requires.

Whatever this parser does not know for sure requires nothing (None). So every match
of a pattern meets its requirement, and most documents that meet it are matches: an index over texts can stand in front
of the engine (`queryworker.filter.text`).
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Final

from queryworker.filter.literals import (
    EMPTY,
    REQUIRED_TEXTS_MAX,
    TEXTS_MAX,
    UNKNOWN,
    Fragment,
    Requirement,
    alternation,
    repetition,
    sequence,
    text_count,
)

_DEPTH_MAX: Final = 50
"""Deepest nesting of groups that is looked into."""


@lru_cache(256)
def required_texts(pattern: str) -> Requirement | None:
    """The condition that every document meets in which `pattern` matches somewhere; None when nothing is known. The
    pattern is one that the crate accepts.
    """
    try:
        requirement = _Parser(pattern).parse().required()
    except _NotUnderstoodError:
        return None
    return requirement if requirement is not None and text_count(requirement) <= REQUIRED_TEXTS_MAX else None


class _NotUnderstoodError(Exception):
    """The pattern has something that this parser does not claim to know."""


_CONTROLS: Final = {"a": "\a", "f": "\f", "t": "\t", "n": "\n", "r": "\r", "v": "\v"}
_HEX_DIGITS: Final = {"x": 2, "u": 4, "U": 8}
_KNOWN_FLAGS: Final = frozenset("imsUuR")
"""Flags that change what matches but not how the pattern is read (`x`, which does, is not among them)."""

_NAME: Final = re.compile(r"P?<([^>]*)>")
_COUNT: Final = re.compile(r"\{([0-9]+)(?:(,)([0-9]*))?\}", re.ASCII)


class _Parser:
    """Recursive descent over one pattern. Flags that a group sets are passed down and hold to its end."""

    def __init__(self, pattern: str) -> None:
        self._pattern = pattern
        self._at = 0

    def parse(self) -> Fragment:
        """The whole pattern. Raises _NotUnderstoodError."""
        fragment = self._alternation(frozenset(), 0)
        if self._at < len(self._pattern):
            raise _NotUnderstoodError
        return fragment

    def _peek(self) -> str:
        """The next character, "" at the end."""
        return self._pattern[self._at : self._at + 1]

    def _next(self) -> str:
        """Read one character."""
        if self._at >= len(self._pattern):
            raise _NotUnderstoodError
        self._at += 1
        return self._pattern[self._at - 1]

    def _read_until(self, end: str) -> str:
        """The text before the next `end`; reading goes on behind it."""
        begin, self._at = self._at, self._pattern.find(end, self._at) + 1
        if not self._at:
            raise _NotUnderstoodError
        return self._pattern[begin : self._at - 1]

    def _alternation(self, flags: frozenset[str], depth: int) -> Fragment:
        """Branches between `|`, up to the end of the pattern or the closing parenthesis of the group."""
        if depth > _DEPTH_MAX:
            raise _NotUnderstoodError
        branches: list[list[Fragment]] = [[]]
        while (char := self._peek()) and char != ")":
            self._at += 1
            if char == "|":
                branches.append([])
            elif char == "(" and (changed := self._flags_alone(flags)) is not None:
                flags = changed
            else:
                branches[-1].append(self._repetitions(self._single(char, flags, depth)))
        return alternation([sequence(branch) for branch in branches])

    def _repetitions(self, fragment: Fragment) -> Fragment:
        """The fragment with the `*`, `+`, `?` and `{..}` that follow it, each of which may be lazy."""
        while self._peek() and self._peek() in "*+?{":
            char = self._next()
            if char == "{":
                count = _COUNT.match(self._pattern, self._at - 1)
                if count is None:
                    raise _NotUnderstoodError
                self._at = count.end()
                least = int(count[1])
                most = least if count[2] is None else int(count[3]) if count[3] else None
            else:
                least, most = {"*": (0, None), "+": (1, None), "?": (0, 1)}[char]
            if self._peek() == "?":  # lazy: which of several matches is preferred does not matter here
                self._at += 1
            fragment = repetition(fragment, least, most)
        return fragment

    def _single(self, char: str, flags: frozenset[str], depth: int) -> Fragment:
        """The fragment that begins with `char`, which was read: a character, a class, an escape, a group."""
        if char in "^$":
            return EMPTY
        if char == ".":
            return UNKNOWN
        if char == "[":
            return self._class(flags)
        if char == "\\":
            return self._escape(flags)
        if char == "(":
            fragment = self._alternation(self._group_flags(flags), depth + 1)
            if self._next() != ")":
                raise _NotUnderstoodError
            return fragment
        return _character(char, flags)

    def _flags_alone(self, flags: frozenset[str]) -> frozenset[str] | None:
        """The flags after `(?flags)`, whose parenthesis was read. None, and nothing read, when this is a group."""
        begin = self._at
        if self._peek() == "?":
            head = re.compile(r"\?([A-Za-z-]+)\)").match(self._pattern, begin)
            if head is not None:
                self._at = head.end()
                return _with_flags(flags, head[1])
        return None

    def _group_flags(self, flags: frozenset[str]) -> frozenset[str]:
        """The flags inside a group whose opening parenthesis was read; reads its name or flags, if it has any."""
        if self._peek() != "?":
            return flags
        self._at += 1
        name = _NAME.match(self._pattern, self._at)
        if name is not None:
            self._at = name.end()
            return flags
        return _with_flags(flags, self._read_until(":"))

    def _escape(self, flags: frozenset[str]) -> Fragment:
        """The fragment of an escape whose backslash was read."""
        char = self._next()
        if char in "dDsSwW":
            return UNKNOWN
        if char in "pP":
            if self._next() == "{":
                self._read_until("}")
            return UNKNOWN
        if char in "bB":
            if self._peek() == "{" and self._pattern[self._at + 1 : self._at + 2].isalpha():
                self._read_until("}")
            return EMPTY
        if char in "Az<>":
            return EMPTY
        return _character(self._escaped(char), flags)

    def _escaped(self, char: str) -> str:
        """The character that the escape of `char` stands for."""
        if char in _CONTROLS:
            return _CONTROLS[char]
        if char in _HEX_DIGITS:
            digits = self._next()
            digits = self._read_until("}") if digits == "{" else digits + self._digits(_HEX_DIGITS[char] - 1)
            try:
                return chr(int(digits, 16))
            except (ValueError, OverflowError):
                raise _NotUnderstoodError from None
        if not char.isascii() or char.isalnum():
            raise _NotUnderstoodError
        return char

    def _digits(self, count: int) -> str:
        return "".join(self._next() for _ in range(count))

    def _class(self, flags: frozenset[str]) -> Fragment:
        """`[...]`, whose bracket was read: its characters when they are few. Classes inside classes and operations on
        classes are not understood.
        """
        negated = self._peek() == "^"
        self._at += negated
        characters: set[str] = set()
        few = True
        first = self._at
        while (char := self._next()) != "]" or self._at - 1 == first:
            if char in "[]" or (char in "&-~" and self._peek() == char):
                raise _NotUnderstoodError
            if char == "\\":
                char = self._next()
                if char in "dDsSwWpP":
                    if char in "pP" and self._next() == "{":
                        self._read_until("}")
                    few = False
                    continue
                char = self._escaped(char)
            last = self._range_end(char)
            few = few and ord(last) - ord(char) < TEXTS_MAX
            if few:
                characters |= {chr(code) for code in range(ord(char), ord(last) + 1)}
        if negated or not few:
            return UNKNOWN
        return alternation([_character(char, flags) for char in characters])

    def _range_end(self, char: str) -> str:
        """The last character of the range that begins with `char`; `char` itself when no range follows."""
        if self._peek() != "-" or self._pattern[self._at + 1 : self._at + 2] in ("]", "-"):
            return char
        self._at += 1
        last = self._next()
        if last == "[":
            raise _NotUnderstoodError
        return self._escaped(self._next()) if last == "\\" else last


def _with_flags(flags: frozenset[str], change: str) -> frozenset[str]:
    """The flags after a change such as `i` or `i-s`."""
    on, _, off = change.partition("-")
    if not set(on) <= _KNOWN_FLAGS or not set(off) <= _KNOWN_FLAGS | {"x"}:
        raise _NotUnderstoodError  # `x` changes what is a character
    return (flags | set(on)) - set(off)


def _character(char: str, flags: frozenset[str]) -> Fragment:
    """A literal character; with the flag `i` all of its forms."""
    if "i" not in flags:
        return Fragment(frozenset([char]))
    if not char.isascii():
        return UNKNOWN
    # The two ASCII letters with a further form of the same letter outside ASCII.
    others = {"k": "\u212a", "s": "\u017f"}.get(char.lower(), "")
    return Fragment(frozenset([char.lower(), *others]))
