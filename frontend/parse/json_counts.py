"""Counting what a JSON text holds before anything is built from it.

A body of 40 MB made of nothing but brackets becomes 13 million lists: 1.4 GB, and seconds in which no other request
runs. So brackets, colons and commas are counted first, in slices of the text, in columns and outside of the
interpreter's lock:

1. All of them, strings included: an upper bound, which nearly every text passes.
2. Where the bound is over a limit, those outside of strings. A quote behind an odd number of backslashes does not end a
   string. The count is right for a text that is JSON; any other text is refused by the parser, and costs no more.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final, NamedTuple

import numpy as np

from frontend.request_limits import RequestLimits, check_limit
from shared.vectors.arrays import Indices, Mask, Uint8Array

SLICE_BYTES: Final = 256 * 1024

PARTS_MANY: Final = 100_000
"""Containers and members that take about 20 ms to parse, in which no other thread runs."""

_QUOTE: Final = ord('"')
_BACKSLASH: Final = ord("\\")
_STRUCTURAL: Final = np.isin(np.arange(256), list(b"{}[],"))
_NO_BACKSLASH: Final = re.compile(rb"[^\\]", re.DOTALL)
_WHERE: Final = "request body"


class JsonCounts(NamedTuple):
    """Objects and arrays, members of objects, and commas of a JSON text: it has at most two values more than commas
    and containers together.
    """

    containers: int
    members: int
    commas: int

    def __add__(self, other: tuple[object, ...]) -> JsonCounts:
        assert isinstance(other, JsonCounts)
        return JsonCounts(self.containers + other.containers, self.members + other.members, self.commas + other.commas)


NONE: Final = JsonCounts(0, 0, 0)


def check_counts(data: bytes, limits: RequestLimits) -> bool:
    """Whether a JSON text may have so many containers and members (PARTS_MANY) that it should be parsed in pieces.
    Raises LimitExceeded for one with more containers, members or values than the limits say.
    """
    if len(data) <= min(PARTS_MANY, limits.json_containers_max, limits.json_members_max, limits.json_values_max):
        return False
    bounds = upper_bounds(data)
    if not _within(bounds, limits):
        counts = exact_counts(data, limits)
        check_limit("objects and arrays", counts.containers, limits.json_containers_max, _WHERE)
        check_limit("members of objects", counts.members, limits.json_members_max, _WHERE)
        check_limit("values", counts.commas, limits.json_values_max, _WHERE)
    return bounds.containers + bounds.members > PARTS_MANY


def _within(counts: JsonCounts, limits: RequestLimits) -> bool:
    return (
        counts.containers <= limits.json_containers_max
        and counts.members <= limits.json_members_max
        and counts.commas <= limits.json_values_max
    )


def upper_bounds(data: bytes) -> JsonCounts:
    """The counts with what is inside of strings."""
    return sum(map(_count, _slices(data)), NONE)


def exact_counts(data: bytes, limits: RequestLimits | None = None) -> JsonCounts:
    """The counts outside of strings, of a text that is JSON; with `limits`, as soon as one of them is passed, those of
    the text up to there.
    """
    counts = NONE
    for _, text, outside in _outside_of_strings(data):
        counts += _count(text[outside])
        if limits is not None and not _within(counts, limits):
            break
    return counts


def structure(data: bytes) -> tuple[Indices, Uint8Array]:
    """The places of all brackets and commas outside of strings, in order, and which character each is; of a text that
    is JSON.
    """
    places, characters = [np.empty(0, np.int64)], [np.empty(0, np.uint8)]
    for start, text, outside in _outside_of_strings(data):
        found = np.flatnonzero(_STRUCTURAL[text] & outside)
        places.append(found + start)
        characters.append(text[found])
    return np.concatenate(places), np.concatenate(characters)


def _outside_of_strings(data: bytes) -> Iterator[tuple[int, Uint8Array, Mask]]:
    """The text in slices: where each begins, its bytes, and which of them stand outside of strings. Escaped quotes and
    backslashes are blanked.
    """
    inside = False
    for start, end in _whole_escapes(data):
        # In this order: a backslash may be escaped as well. Then every quote opens or closes a string.
        piece = data[start:end].replace(b"\\\\", b"  ").replace(b'\\"', b"  ")
        text = np.frombuffer(piece, np.uint8)
        in_string = np.bitwise_xor.accumulate(text == _QUOTE)
        in_string ^= inside
        inside = bool(in_string[-1])
        yield start, text, ~in_string


def _whole_escapes(data: bytes) -> Iterator[tuple[int, int]]:
    """The slices of the text, made longer so that none ends behind a backslash: the next byte belongs to it."""
    start = 0
    while start < len(data):
        end = min(start + SLICE_BYTES, len(data))
        if data[end - 1] == _BACKSLASH:
            following = _NO_BACKSLASH.search(data, end)
            end = following.end() if following else len(data)
        yield start, end
        start = end


def _slices(data: bytes) -> Iterator[Uint8Array]:
    text = np.frombuffer(data, np.uint8)
    for start in range(0, len(text), SLICE_BYTES):
        yield text[start : start + SLICE_BYTES]


def _count(text: Uint8Array) -> JsonCounts:
    containers = np.count_nonzero((text == ord("{")) | (text == ord("[")))
    return JsonCounts(int(containers), int(np.count_nonzero(text == ord(":"))), int(np.count_nonzero(text == ord(","))))
