"""Parsing a long JSON text piece by piece, so that other threads run in between.

A parser holds the interpreter's lock until it has parsed all it was given: for 40 MB of objects, half a second in which
no other request is answered. So a long text is cut where a comma or a colon of a long container stands:

1. Find the brackets and commas outside of strings, in columns, and how deep each of them is.
2. A container of at most PIECE_BYTES is parsed at once. Of a longer one, so many members or elements in a row are
   parsed at once as make a piece; a member or an element that is longer than that by itself is cut likewise.
3. Each piece must hold as many members or elements as there are commas around them: `[1,,2]` is no JSON, although its
   parts would be.

What is wrong with a text is said with the place in the whole text.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import orjson

from frontend.parse.json_counts import structure
from frontend.parse.number_rows import NumberRows, parse_with_rows
from shared.errors import MalformedBody
from shared.vectors.arrays import Indices

PIECE_BYTES: Final = 256 * 1024
DEPTH_MAX: Final = 127
"""Containers inside containers; more is a syntax error, as in Chroma's own parser (docs/wire.md, section 1)."""

MALFORMED: Final = "Failed to parse the request body as JSON: "
_NAME: Final = re.compile(rb'[ \t\r\n]*("(?:[^"\\]|\\.)*")[ \t\r\n]*:', re.DOTALL)
_BLANKS: Final = b" \t\r\n"
_CLOSING: Final = {ord("{"): ord("}"), ord("["): ord("]")}
_OPENING: Final = frozenset(_CLOSING)
_COMMA: Final = ord(",")


def parse_at_once(data: bytes | memoryview) -> Any:
    """The tree of a text, parsed in one step. Raises MalformedBody."""
    try:
        return orjson.loads(data)
    except orjson.JSONDecodeError as error:
        raise MalformedBody(f"{MALFORMED}{error.msg} at line {error.lineno} column {error.colno}") from None


def parse_sliced(data: bytes, rows: str | None = None) -> Any:
    """The tree of a text, as `parse_at_once` would give it; a long member `rows` of the root that holds rows of numbers
    is NumberRows. Raises MalformedBody.
    """
    places, characters = structure(data)
    if not len(places):
        return parse_at_once(data)  # a string or a number, or text that is no JSON
    opens = (characters == ord("{")) | (characters == ord("["))
    depths = np.cumsum(np.where(characters == _COMMA, 0, np.where(opens, 1, -1)), dtype=np.intp)
    if depths.max() > DEPTH_MAX:
        raise MalformedBody(f"{MALFORMED}recursion limit exceeded")
    start, end = int(places[0]), int(places[-1]) + 1
    text = _Text(data, places, depths, rows)
    if data[start] not in _OPENING or data[:start].strip(_BLANKS):
        raise text.malformed("expected a JSON value", start)
    ends = np.flatnonzero(depths == 0)
    if not len(ends) or depths.min() < 0:
        raise text.malformed("brackets do not match", end)
    root_end = int(places[ends[0]]) + 1
    if root_end != end or data[end:].strip(_BLANKS):
        raise text.malformed("unexpected content after the document", root_end)
    return text.container(start, end)


@dataclass(frozen=True, slots=True)
class _Text:
    """A text with the places of its brackets and commas, in order, and the depth behind each of them."""

    data: bytes
    places: Indices
    depths: Indices
    rows: str | None

    def container(self, start: int, end: int) -> Any:
        """The tree of the object or array at [start, end)."""
        data = self.data
        if end - start <= PIECE_BYTES:
            return self._piece(data[start:end], start)
        if data[end - 1] != _CLOSING[data[start]]:
            raise self.malformed("brackets do not match", end - 1)
        bounds = self._commas(start, end)
        if len(bounds) == 2 and not data[start + 1 : end - 1].strip(_BLANKS):
            return {} if data[start] == ord("{") else []
        if data[start] == ord("["):
            return self._array(bounds)
        return self._object(bounds, self.rows if start == self.places[0] else None)

    def _commas(self, start: int, end: int) -> list[int]:
        """The places of the container's own commas, between those of its brackets."""
        first, last = np.searchsorted(self.places, (start, end - 1))
        inner = self.places[first + 1 : last]
        text = np.frombuffer(self.data, np.uint8)
        own = inner[(self.depths[first + 1 : last] == self.depths[first]) & (text[inner] == _COMMA)]
        return [start, *own.tolist(), end - 1]

    def _array(self, bounds: list[int]) -> list[Any]:
        found: list[Any] = []
        for first, last in _pieces(bounds):
            start, end = bounds[first] + 1, bounds[last]
            if last == first + 1 and end - start > PIECE_BYTES:
                found.append(self._value(start, end))
                continue
            some = self._piece(b"[%b]" % self.data[start:end], start - 1)
            if len(some) != last - first:
                raise self.malformed("expected a value", end)
            found += some
        return found

    def _object(self, bounds: list[int], rows: str | None) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for first, last in _pieces(bounds):
            start, end = bounds[first] + 1, bounds[last]
            if last == first + 1 and end - start > PIECE_BYTES:
                name = _NAME.match(self.data, start, end)
                if name is None:
                    raise self.malformed("expected a member", start)
                member = self._piece(name[1], name.start(1))
                numbers = self._number_rows(name.end(), end) if member == rows else None
                found[member] = self._value(name.end(), end) if numbers is None else numbers
                continue
            # A member that is repeated within a piece is found later, like one that is repeated anywhere.
            some = self._piece(b"{%b}" % self.data[start:end], start - 1)
            if not self.data[start:end].strip(_BLANKS) or self.data[start:end].rstrip(_BLANKS).endswith(b","):
                raise self.malformed("expected a member", end)
            found.update(some)
        return found

    def _number_rows(self, start: int, end: int) -> NumberRows | None:
        """The value at [start, end), with blanks around it, if it holds rows of numbers and nothing else."""
        start, end = self._trimmed(start, end)
        if self.data[start : start + 1] != b"[" or self.data[end - 1 : end] != b"]":
            return None
        bounds, values, lengths = self._commas(start, end), [], list[int]()
        for first, last in _pieces(bounds):
            piece = b'{"rows":[%b]}' % self.data[bounds[first] + 1 : bounds[last]]
            found = parse_with_rows(piece, "rows")
            if found is None or len(found["rows"].lengths) != last - first:
                return None
            values.append(found["rows"].values)
            lengths += found["rows"].lengths
        return NumberRows(np.concatenate(values), lengths)

    def _trimmed(self, start: int, end: int) -> tuple[int, int]:
        """The range without blanks at its ends."""
        while start < end and self.data[start] in _BLANKS:
            start += 1
        while start < end and self.data[end - 1] in _BLANKS:
            end -= 1
        return start, end

    def _value(self, start: int, end: int) -> Any:
        """The tree of a long value at [start, end), with blanks around it."""
        start, end = self._trimmed(start, end)
        if start < end and self.data[start] in _OPENING:
            return self.container(start, end)
        return self._piece(self.data[start:end], start)

    def _piece(self, piece: bytes, start: int) -> Any:
        """The tree of a piece, which begins at the place `start` of the text."""
        try:
            return orjson.loads(piece)
        except orjson.JSONDecodeError as error:
            at = start + len(error.doc[: error.pos].encode(errors="surrogatepass"))
            raise self.malformed(error.msg, min(max(at, 0), len(self.data))) from None

    def malformed(self, what: str, place: int) -> MalformedBody:
        """The error of a text in which something is wrong at a place."""
        line_start = self.data.rfind(b"\n", 0, place) + 1
        column = len(self.data[line_start:place].decode(errors="replace")) + 1
        line = self.data.count(b"\n", 0, place) + 1
        return MalformedBody(f"{MALFORMED}{what} at line {line} column {column}")


def _pieces(bounds: list[int]) -> list[tuple[int, int]]:
    """Ranges of the indices of bounds, one after the other: each spans a piece's bytes at most, or a single part."""
    found: list[tuple[int, int]] = []
    first = 0
    for last in range(1, len(bounds)):
        if bounds[last] - bounds[first] > PIECE_BYTES and last - 1 > first:
            found.append((first, last - 1))
            first = last - 1
    found.append((first, len(bounds) - 1))
    return found
