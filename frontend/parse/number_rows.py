"""Parsing a body with vectors straight into one array: no Python object is made for any of the numbers.

simdjson parses the text into its own form, from which the rows are copied out in one step. Only text that is certainly
valid is parsed in this way. Everything else (text that is no JSON, a repeated member, a row with something other than
numbers) is left to the general parse, which also knows what to say about it.
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
"""The parser of small bodies: making one costs as much as parsing a query. Large bodies are parsed in threads, each by
a parser of its own, whose memory is freed with it.
"""

_ROWS_BEGIN: Final = re.compile(rb"[ \t\r\n]*:[ \t\r\n]*\[[ \t\r\n]*\[")


@dataclass(frozen=True, slots=True)
class NumberRows:
    """Rows of numbers end to end, as float32 (too large ones are infinite), and the length of each row."""

    values: Float32Array
    lengths: list[int]


def parse_with_rows(data: bytes, name: str) -> dict[str, Any] | None:
    """The object in a JSON text whose member `name` holds rows of numbers: that member as NumberRows, the others as
    plain values, in which repeated members are not looked for. None when the text is not certainly of that form.
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
    """The range of the text that holds the rows: from the first occurrence of the quoted name to the next quote, since
    rows of numbers have no quotes. None when the name occurs again: only one occurrence is the member.
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
    """The rows of a column; None when they are not rows of numbers. `brackets` is the number of arrays in the text of
    the column: simdjson would flatten an array inside of a row.
    """
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
