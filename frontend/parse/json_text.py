"""Parsing JSON text into a tree; text in which an object repeats a member is refused.

orjson keeps the last of repeated members and says nothing, so they are looked for afterwards, by counting:
when the text has as many names as the tree has members, none was repeated. Names are counted in columns
(`_count_names`) instead of by a second parse in Python code. Where the numbers differ, or the text cannot be counted
in that way, the exact and slow parse decides.
"""

from __future__ import annotations

import gc
import json
import re
from typing import Any, Final

import numpy as np

from frontend.concurrency import IN_THREAD_BYTES_MIN
from frontend.parse.number_rows import parse_with_rows
from frontend.parse.shapes import wrong_shape
from frontend.parse.sliced_json import DEPTH_MAX, MALFORMED, parse_at_once, parse_sliced
from shared.errors import MalformedBody
from shared.vectors.arrays import Indices, Uint8Array

SHORT_BYTES_MAX: Final = 16 * 1024
QUOTES_FEW: Final = 200
"""In a text of at most so many bytes and quotes, names are counted by splitting it at its quotes: setting up columns
takes longer."""

_BLANK_BEFORE_COLON: Final = re.compile(rb'"[ \t\r\n]+:')
_BLANKS_END: Final = ord(" ")  # the other blanks come before it, and nothing else of a JSON text outside of strings
_CONTAINERS: Final = frozenset({dict, list})
_QUOTE: Final = b'"'
_BACKSLASH: Final = ord("\\")
_COLON: Final = ord(":")


def parse(data: bytes, rows: str | None = None, *, in_pieces: bool = False) -> Any:
    """The JSON text as a tree of dicts, lists, strings, numbers, booleans and None. Rows of numbers in the member
    `rows` of the root may be NumberRows. A long text is parsed `in_pieces` so that other threads run in between. Raises
    MalformedBody, and WrongShape for a repeated member.
    """
    tree = None if rows is None or in_pieces else parse_with_rows(data, rows)
    if tree is None:
        tree = _parse_any(data, rows, in_pieces=in_pieces)
    elif not any(type(value) in _CONTAINERS for value in tree.values()):
        return tree  # the root's members were checked, and no other object is there
    # Raises MalformedBody for a tree that is too deep.
    if _count_members(tree) != _count_names(data):
        _find_repeated(data)
    return tree


def _parse_any(data: bytes, rows: str | None, *, in_pieces: bool) -> Any:
    # A text of nothing but brackets makes millions of lists while no other request runs. The garbage collector would
    # traverse all of them again and again, for garbage that cannot be there, and that takes as long once more.
    collecting = len(data) >= IN_THREAD_BYTES_MIN and gc.isenabled()
    if collecting:
        gc.disable()
    try:
        return parse_sliced(data, rows) if in_pieces else parse_at_once(data)
    finally:
        if collecting:
            gc.enable()


def _count_names(data: bytes) -> int | None:
    """The number of member names in a valid JSON text; None when blanks stand before a colon, which counting in columns
    does not see through.

    Quotes that are not escaped open and close strings in turn, and a string that ends before a colon is a name.
    """
    if len(data) > SHORT_BYTES_MAX or data.count(_QUOTE) > QUOTES_FEW:
        return _count_names_in_columns(data)
    if b"\\" in data:
        data = data.replace(b"\\\\", b"").replace(b'\\"', b"")  # in this order: a backslash may be escaped as well
    return sum(text.lstrip().startswith(b":") for text in data.split(_QUOTE)[2::2])


def _count_names_in_columns(data: bytes) -> int | None:
    """The number of member names, in columns: all quotes of the text at once. A quote behind an odd number of
    backslashes stands inside a string.
    """
    text = np.frombuffer(data, np.uint8)
    quotes = np.flatnonzero(text == ord(_QUOTE))
    escaped = text.take(quotes - 1, mode="clip") == _BACKSLASH
    if escaped.any():
        places = np.flatnonzero(escaped)
        places = places[text.take(quotes[places] - 2, mode="clip") == _BACKSLASH]
        if len(places):
            escaped[places] = _backslashes_before(text, quotes[places]) % 2 == 1
        quotes = quotes[~escaped]
    following = text.take(quotes[1::2] + 1, mode="clip")
    if (following <= _BLANKS_END).any() and _BLANK_BEFORE_COLON.search(data):
        return None
    return int(np.count_nonzero(following == _COLON))


def _backslashes_before(text: Uint8Array, places: Indices) -> Indices:
    """The length of the run of backslashes that ends right before each place; each has at least one."""
    found = np.flatnonzero(text == _BACKSLASH)
    begins = np.diff(found, prepend=-2) != 1
    run = np.cumsum(begins) - 1
    lengths: Indices = places - found[begins][run[np.searchsorted(found, places - 1)]]
    return lengths


def _count_members(tree: Any) -> int:
    """The number of members of all objects, counted level by level. A list that begins with a number or a string is
    skipped: vectors cost nothing, and objects hidden in such a list only make the count too small, which leads to the
    exact parse. Raises MalformedBody for a tree that is too deep.
    """
    members = 0
    level: list[Any] = [tree]
    for _ in range(DEPTH_MAX + 1):
        objects = [node for node in level if type(node) is dict]
        lists = [node for node in level if type(node) is list and node and type(node[0]) not in (float, int, str)]
        if not objects and not lists:
            return members
        members += sum(map(len, objects))
        level = [child for node in objects for child in node.values() if type(child) in (dict, list)]
        level += [child for node in lists for child in node if type(child) in (dict, list)]
    raise MalformedBody(f"{MALFORMED}recursion limit exceeded")


def _find_repeated(data: bytes) -> None:
    """Parses the text once more, with the members of every object as written. Raises WrongShape at the first repeated
    member.
    """
    try:
        json.loads(data, object_pairs_hook=_refuse_repeated, parse_float=_number, parse_int=_number)
    except RecursionError:
        raise MalformedBody(f"{MALFORMED}recursion limit exceeded") from None


def _number(_: str) -> None:
    """Stands in for every number: only names matter to this parse."""


def _refuse_repeated(pairs: list[tuple[str, Any]]) -> None:
    seen: set[str] = set()
    for name, _ in pairs:
        if name in seen:
            raise wrong_shape(f"duplicate field `{name}`")
        seen.add(name)
