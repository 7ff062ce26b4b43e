"""What a pattern requires: texts of which some must occur in whatever it matches. Pure.

`requirement` reads the syntax of the Rust `regex` crate, but only as far as it helps; whatever it does not know for
sure requires nothing. So every match of a pattern meets its requirement, and most documents that meet it are matches:
an index over texts can stand in front of the engine. Texts occur *ignoring the case of ASCII letters*: one notion for
patterns with and without `(?i)`.

    https?://(foo|bar)baz.*qux   ->   one of http://foobaz, http://barbaz, https://foobaz, https://barbaz; and qux

A piece of a pattern that matches finitely many texts is those texts (`_Piece.texts`). Pieces that follow each other are
multiplied out while they stay few; where that ends (`.`, a wide class, `*`), one of the texts so far is required.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache
from typing import Final, TypeAlias

TEXTS_MAX: Final = 32
"""Most texts that a piece is multiplied out to."""

LITERALS_MAX: Final = 256
"""A requirement with more texts is none: to look them all up would cost more than the engine."""

_BYTES_MIN: Final = 3
"""Shorter texts exclude nothing."""

_DEPTH_MAX: Final = 50


@dataclass(frozen=True, slots=True)
class Occurs:
    """A text that has to occur."""

    text: str


@dataclass(frozen=True, slots=True)
class Every:
    """All of these hold."""

    needs: tuple[Need, ...]


@dataclass(frozen=True, slots=True)
class Some:
    """At least one of these holds."""

    needs: tuple[Need, ...]


Need: TypeAlias = Occurs | Every | Some


@lru_cache(256)
def requirement(pattern: str) -> Need | None:
    """What every text that `pattern` (one that the crate takes) occurs in meets; None when nothing is known."""
    try:
        need = _Parser(pattern).whole().required()
    except _NotUnderstood:
        return None
    return need if need is not None and _size(need) <= LITERALS_MAX else None


def _size(need: Need) -> int:
    return 1 if isinstance(need, Occurs) else sum(map(_size, need.needs))


class _NotUnderstood(Exception):
    """Something that this module does not claim to know."""


@dataclass(frozen=True, slots=True)
class _Piece:
    """A part of a pattern. `texts`: all that it matches, when they are few; else None, and `need` must hold."""

    texts: frozenset[str] | None
    need: Need | None = None

    def required(self) -> Need | None:
        if self.texts is None:
            return self.need
        if not self.texts or min(len(text.encode()) for text in self.texts) < _BYTES_MIN:
            return None
        # Where a text occurs, so does every other one that is a part of it.
        least = [text for text in self.texts if not any(other in text for other in self.texts - {text})]
        occurs = tuple(map(Occurs, sorted(least)))
        return occurs[0] if len(occurs) == 1 else Some(occurs)


_NOTHING: Final = _Piece(frozenset([""]))
"""Matches without a character: an anchor, a boundary."""

_ANYTHING: Final = _Piece(None)


def _sequence(pieces: list[_Piece]) -> _Piece:
    needs: list[Need | None] = []
    texts: frozenset[str] = frozenset([""])
    whole = True
    for piece in pieces:
        if piece.texts is not None and len(texts) * len(piece.texts) <= TEXTS_MAX:
            texts = frozenset(before + after for before in texts for after in piece.texts)
            continue
        whole = False
        needs += [_Piece(texts).required(), piece.need]
        texts = frozenset([""]) if piece.texts is None else piece.texts
    if whole:
        return _Piece(texts)
    known = tuple(need for need in (*needs, _Piece(texts).required()) if need is not None)
    return _Piece(None, None if not known else known[0] if len(known) == 1 else Every(known))


def _either(pieces: list[_Piece]) -> _Piece:
    if len(pieces) == 1:
        return pieces[0]
    together: set[str] = set()
    for piece in pieces:
        if piece.texts is None or len(together) > TEXTS_MAX:
            break
        together |= piece.texts
    else:
        if len(together) <= TEXTS_MAX:
            return _Piece(frozenset(together))
    needs = [piece.required() for piece in pieces]
    known = tuple(need for need in needs if need is not None)
    return _Piece(None, Some(known) if len(known) == len(needs) else None)


def _repeated(piece: _Piece, least: int, most: int | None) -> _Piece:
    if (least, most) == (0, 1) and piece.texts is not None:
        return _Piece(piece.texts | {""})
    if least == 0:
        return _NOTHING if most == 0 else _ANYTHING
    if piece.texts is not None and least <= TEXTS_MAX:
        together = _sequence([piece] * least)
        return together if least == most else _Piece(None, together.required())
    return _Piece(None, piece.required())


_CONTROLS: Final = {"a": "\a", "f": "\f", "t": "\t", "n": "\n", "r": "\r", "v": "\v"}
_HEX_DIGITS: Final = {"x": 2, "u": 4, "U": 8}
_KEPT_FLAGS: Final = frozenset("imsUuR")
_NAME: Final = re.compile(r"P?<([^>]*)>")
_COUNT: Final = re.compile(r"\{([0-9]+)(?:(,)([0-9]*))?\}", re.ASCII)


class _Parser:
    """Recursive descent; a group's flags are passed down and hold to its end."""

    def __init__(self, pattern: str) -> None:
        self._pattern = pattern
        self._at = 0

    def whole(self) -> _Piece:
        piece = self._alternation(frozenset(), 0)
        if self._at < len(self._pattern):
            raise _NotUnderstood
        return piece

    def _peek(self) -> str:
        """The next character, "" at the end."""
        return self._pattern[self._at : self._at + 1]

    def _next(self) -> str:
        if self._at >= len(self._pattern):
            raise _NotUnderstood
        self._at += 1
        return self._pattern[self._at - 1]

    def _past(self, end: str) -> str:
        """What stands before the next `end`, which is passed."""
        begin, self._at = self._at, self._pattern.find(end, self._at) + 1
        if not self._at:
            raise _NotUnderstood
        return self._pattern[begin : self._at - 1]

    def _alternation(self, flags: frozenset[str], depth: int) -> _Piece:
        """Up to the end of the pattern or the group's parenthesis."""
        if depth > _DEPTH_MAX:
            raise _NotUnderstood
        branches: list[list[_Piece]] = [[]]
        while (char := self._peek()) and char != ")":
            self._at += 1
            if char == "|":
                branches.append([])
            elif char == "(" and (changed := self._flags_alone(flags)) is not None:
                flags = changed
            else:
                branches[-1].append(self._repetitions(self._atom(char, flags, depth)))
        return _either([_sequence(branch) for branch in branches])

    def _repetitions(self, piece: _Piece) -> _Piece:
        while self._peek() and self._peek() in "*+?{":
            char = self._next()
            if char == "{":
                count = _COUNT.match(self._pattern, self._at - 1)
                if count is None:
                    raise _NotUnderstood
                self._at = count.end()
                least = int(count[1])
                most = least if count[2] is None else int(count[3]) if count[3] else None
            else:
                least, most = {"*": (0, None), "+": (1, None), "?": (0, 1)}[char]
            if self._peek() == "?":  # which match is preferred does not matter
                self._at += 1
            piece = _repeated(piece, least, most)
        return piece

    def _atom(self, char: str, flags: frozenset[str], depth: int) -> _Piece:
        if char in "^$":
            return _NOTHING
        if char == ".":
            return _ANYTHING
        if char == "[":
            return self._class(flags)
        if char == "\\":
            return self._escape(flags)
        if char == "(":
            piece = self._alternation(self._group_flags(flags), depth + 1)
            if self._next() != ")":
                raise _NotUnderstood
            return piece
        return _character(char, flags)

    def _flags_alone(self, flags: frozenset[str]) -> frozenset[str] | None:
        """`(?flags)`, of which the parenthesis was read; None, and nothing read, when it is a group."""
        begin = self._at
        if self._peek() == "?":
            head = re.compile(r"\?([A-Za-z-]+)\)").match(self._pattern, begin)
            if head is not None:
                self._at = head.end()
                return _with_flags(flags, head[1])
        return None

    def _group_flags(self, flags: frozenset[str]) -> frozenset[str]:
        """What follows a group's parenthesis: a name, flags, nothing."""
        if self._peek() != "?":
            return flags
        self._at += 1
        name = _NAME.match(self._pattern, self._at)
        if name is not None:
            self._at = name.end()
            return flags
        return _with_flags(flags, self._past(":"))

    def _escape(self, flags: frozenset[str]) -> _Piece:
        char = self._next()
        if char in "dDsSwW":
            return _ANYTHING
        if char in "pP":
            if self._next() == "{":
                self._past("}")
            return _ANYTHING
        if char in "bB":
            if self._peek() == "{" and self._pattern[self._at + 1 : self._at + 2].isalpha():
                self._past("}")
            return _NOTHING
        if char in "Az<>":
            return _NOTHING
        return _character(self._escaped(char), flags)

    def _escaped(self, char: str) -> str:
        """The character that an escape stands for."""
        if char in _CONTROLS:
            return _CONTROLS[char]
        if char in _HEX_DIGITS:
            digits = self._next()
            digits = self._past("}") if digits == "{" else digits + self._digits(_HEX_DIGITS[char] - 1)
            try:
                return chr(int(digits, 16))
            except (ValueError, OverflowError):
                raise _NotUnderstood from None
        if not char.isascii() or char.isalnum():
            raise _NotUnderstood
        return char

    def _digits(self, count: int) -> str:
        return "".join(self._next() for _ in range(count))

    def _class(self, flags: frozenset[str]) -> _Piece:
        """`[...]` of a few characters; classes in classes and their algebra are not looked into."""
        negated = self._peek() == "^"
        self._at += negated
        characters: set[str] = set()
        few = True
        first = self._at
        while (char := self._next()) != "]" or self._at - 1 == first:
            if char in "[]" or (char in "&-~" and self._peek() == char):
                raise _NotUnderstood
            if char == "\\":
                char = self._next()
                if char in "dDsSwWpP":
                    if char in "pP" and self._next() == "{":
                        self._past("}")
                    few = False
                    continue
                char = self._escaped(char)
            last = self._range_end(char)
            few = few and ord(last) - ord(char) < TEXTS_MAX
            if few:
                characters |= {chr(code) for code in range(ord(char), ord(last) + 1)}
        if negated or not few:
            return _ANYTHING
        return _either([_character(char, flags) for char in characters])

    def _range_end(self, char: str) -> str:
        """The end of the range that begins with `char`: itself when it begins none."""
        if self._peek() != "-" or self._pattern[self._at + 1 : self._at + 2] in ("]", "-"):
            return char
        self._at += 1
        last = self._next()
        if last == "[":
            raise _NotUnderstood
        return self._escaped(self._next()) if last == "\\" else last


def _with_flags(flags: frozenset[str], change: str) -> frozenset[str]:
    on, _, off = change.partition("-")
    if not set(on) <= _KEPT_FLAGS or not set(off) <= _KEPT_FLAGS | {"x"}:
        raise _NotUnderstood  # `x` changes what is a character
    return (flags | set(on)) - set(off)


def _character(char: str, flags: frozenset[str]) -> _Piece:
    if "i" not in flags:
        return _Piece(frozenset([char]))
    if not char.isascii():
        return _ANYTHING
    # The two ASCII letters with a further form of the same letter outside ASCII.
    others = {"k": "\u212a", "s": "\u017f"}.get(char.lower(), "")
    return _Piece(frozenset([char.lower(), *others]))
