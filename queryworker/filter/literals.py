"""Texts that a regular expression requires: what every document that it matches must contain. Pure.

This is the literal extraction that stands in front of a trigram index, as in Cox, "Regular Expression Matching with a
Trigram Index" (2012), and in the literal module of Rust's `regex-syntax`.

```text
https?://(foo|bar)baz.*qux   ->   one of http://foobaz, http://barbaz, https://foobaz, https://barbaz; and qux
```

A fragment of a pattern that matches finitely many texts is those texts (`Fragment.texts`). Fragments that follow each
other are multiplied out while the texts stay few; where that ends (`.`, a wide class, `*`), one of the texts so far is
required. Texts are required *ignoring the case of ASCII letters*: so patterns with and without `(?i)` are treated
alike.

`queryworker.filter.pattern_parser` makes fragments of a pattern's syntax; this module combines them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, TypeAlias

TEXTS_MAX: Final = 32
"""Most texts that a fragment is multiplied out to."""

REQUIRED_TEXTS_MAX: Final = 256
"""A requirement of more texts is dropped: to look them all up would cost more than the engine."""

_REQUIRED_BYTES_MIN: Final = 3
"""Shorter texts are never required: a trigram index excludes nothing by them."""


@dataclass(frozen=True, slots=True)
class RequiredText:
    """The document contains this text, ignoring the case of ASCII letters."""

    text: str


@dataclass(frozen=True, slots=True)
class AllRequired:
    """The document meets all of these requirements."""

    requirements: tuple[Requirement, ...]


@dataclass(frozen=True, slots=True)
class AnyRequired:
    """The document meets at least one of these requirements."""

    requirements: tuple[Requirement, ...]


Requirement: TypeAlias = RequiredText | AllRequired | AnyRequired


def text_count(requirement: Requirement) -> int:
    """The number of texts that the requirement names."""
    return 1 if isinstance(requirement, RequiredText) else sum(map(text_count, requirement.requirements))


@dataclass(frozen=True, slots=True)
class Fragment:
    """Knowledge of a fragment of a pattern: all `texts` that it matches, when they are few; else `texts` is None,
    and whatever it matches meets `requirement` (None: nothing is known).
    """

    texts: frozenset[str] | None
    requirement: Requirement | None = None

    def required(self) -> Requirement | None:
        """The condition that every text meets in which the fragment occurs; None when nothing is required."""
        if self.texts is None:
            return self.requirement
        if not self.texts or min(len(text.encode()) for text in self.texts) < _REQUIRED_BYTES_MIN:
            return None
        # A document that contains a text also contains every substring of it.
        shortest = [text for text in self.texts if not any(other in text for other in self.texts - {text})]
        required = tuple(map(RequiredText, sorted(shortest)))
        return required[0] if len(required) == 1 else AnyRequired(required)


EMPTY: Final = Fragment(frozenset([""]))
"""A fragment that matches without consuming a character: an anchor, a boundary."""

UNKNOWN: Final = Fragment(None)
"""A fragment of which nothing is known."""


def sequence(fragments: Sequence[Fragment]) -> Fragment:
    """Fragments one after the other."""
    requirements: list[Requirement | None] = []
    texts: frozenset[str] = frozenset([""])
    finite = True
    for fragment in fragments:
        if fragment.texts is not None and len(texts) * len(fragment.texts) <= TEXTS_MAX:
            texts = frozenset(before + after for before in texts for after in fragment.texts)
            continue
        finite = False
        requirements += [Fragment(texts).required(), fragment.requirement]
        texts = frozenset([""]) if fragment.texts is None else fragment.texts
    if finite:
        return Fragment(texts)
    known = tuple(need for need in (*requirements, Fragment(texts).required()) if need is not None)
    return Fragment(None, None if not known else known[0] if len(known) == 1 else AllRequired(known))


def alternation(fragments: Sequence[Fragment]) -> Fragment:
    """Any one of the fragments, of which there is at least one."""
    if len(fragments) == 1:
        return fragments[0]
    texts: set[str] = set()
    for fragment in fragments:
        if fragment.texts is None or len(texts) > TEXTS_MAX:
            break
        texts |= fragment.texts
    else:
        if len(texts) <= TEXTS_MAX:
            return Fragment(frozenset(texts))
    requirements = [fragment.required() for fragment in fragments]
    known = tuple(need for need in requirements if need is not None)
    return Fragment(None, AnyRequired(known) if len(known) == len(requirements) else None)


def repetition(fragment: Fragment, least: int, most: int | None) -> Fragment:
    """The fragment `least` to `most` times in a row (None: without an upper bound)."""
    if (least, most) == (0, 1) and fragment.texts is not None:
        return Fragment(fragment.texts | {""})
    if least == 0:
        return EMPTY if most == 0 else UNKNOWN
    if fragment.texts is not None and least <= TEXTS_MAX:
        repeated = sequence([fragment] * least)
        return repeated if least == most else Fragment(None, repeated.required())
    return Fragment(None, fragment.required())
