"""Bodies that hold vectors as numbers, parsed straight into one array: no object is made for any of the numbers.

simdjson parses the text into its own form, from which the rows are copied out in one step. Only what is sure to be
right goes this way. All else (text that is no JSON, a repeated member, a row that is no row of numbers) is left to the
general parse, which also knows what to say about it.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import simdjson

from shared.vectors.arrays import Float32Array

_BOM: Final = b"\xef\xbb\xbf"
_SMALL_BYTES_MAX: Final = 64 * 1024
_small_parser: Final = simdjson.Parser()
"""Making a parser costs as much as parsing a query; for large bodies, parsed in threads, each has its own, and what it
has grown to ends with it.
"""

_ROWS_BEGIN: Final = re.compile(rb"[ \t\r\n]*:[ \t\r\n]*\[[ \t\r\n]*\[")


@dataclass(frozen=True, slots=True)
class NumberRows:
    """Rows of numbers end to end, as float32 (too large ones are infinite), and how long each is."""

    values: Float32Array
    lengths: list[int]


def parse_with_rows(data: bytes, name: str) -> dict[str, Any] | None:
    """The object in a JSON text whose member `name` holds rows of numbers: that one as NumberRows, the others as they
    are, members repeated inside of those not looked for. None when it is no such text, or not surely one.
    """
    span = _span_of_rows(data, name)
    if span is None or data.startswith(_BOM):  # which simdjson would overlook
        return None
    parser = _small_parser if len(data) <= _SMALL_BYTES_MAX else simdjson.Parser()
    try:
        document = parser.parse(data)
        if not isinstance(document, simdjson.Object):
            return None
        names = list(document)
        if name not in names or len(set(names)) != len(names) or any("\0" in key for key in names):
            return None  # simdjson looks members up by names that end at a NUL
        rows = _number_rows(document[name], data.count(b"[", *span))
    except (ValueError, TypeError, RuntimeError):  # no JSON, no row, no number that fits
        return None
    if rows is None:
        return None
    tree: dict[str, Any] = {key: _plain(document[key]) for key in names if key != name}
    tree[name] = rows
    return tree


def _span_of_rows(data: bytes, name: str) -> tuple[int, int] | None:
    """From the mention of the name to the next quote: no quotes are in rows of numbers. None when the name is mentioned
    again: only one of them is the member.
    """
    key = b'"%b"' % name.encode()
    start = data.find(key)
    if start < 0 or not _ROWS_BEGIN.match(data, start + len(key)):
        return None
    start += len(key)
    end = data.find(b'"', start)
    if end >= 0 and data.find(key, end) >= 0:
        return None
    return start, (end if end >= 0 else len(data))


def _number_rows(column: Any, brackets: int) -> NumberRows | None:
    """`brackets` says how many arrays there are: simdjson would read through one inside of a row."""
    lengths = list(map(len, column))
    if brackets != 1 + len(lengths):
        return None
    values = np.frombuffer(column.as_buffer(of_type="d"), dtype=np.float64)
    if len(values) != sum(lengths):
        return None
    with np.errstate(over="ignore"):
        return NumberRows(values.astype(np.float32), lengths)


def _plain(value: Any) -> Any:
    if isinstance(value, simdjson.Object):
        return value.as_dict()
    return value.as_list() if isinstance(value, simdjson.Array) else value
