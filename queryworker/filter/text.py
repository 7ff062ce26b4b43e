"""Search in documents: which of a column contain a text, which match a regular expression.

Literals are found by RE2 (through Arrow) over the column's own bytes, without the interpreter lock: a literal means the
same to every engine, and RE2 finds it several times faster than Arrow's own substring kernel. Patterns go to the engine
that defines them (`shared.records.regex`), document by document; RE2's classes, boundaries and case folding differ from
it in Unicode. A text index (`shared.segment.text_index`) says beforehand which documents cannot match.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pyroaring import BitMap

from queryworker.filter.literals import AllRequired, RequiredText, Requirement
from queryworker.filter.pattern_parser import required_texts
from shared.process import work
from shared.records.regex import Matcher, compile_regex
from shared.records.where import DocumentContains, DocumentRegex
from shared.segment.text_index import TextIndex
from shared.vectors.arrays import Mask

_RE2_LITERAL_BYTES_MAX: Final = 4096
"""Longer literals are searched by Arrow's substring kernel: RE2's compiled form of them grows towards its memory limit,
where it refuses.
"""

_METACHARACTERS: Final = frozenset(r"\.+*?()|[]{}^$")
"""A pattern without any of these characters is a literal."""

_CHUNK_ROWS: Final = 4096
_CHUNK_BYTES: Final = 16 * 1024 * 1024
"""Most documents, and bytes of documents, that are Python strings at the same time."""

_LITERAL_CHUNK_ROWS: Final = 256 * 1024
"""Most documents that are searched for a literal between two looks at whether the work is still wanted; their bytes are
those of a chunk."""

_CHECKED_BYTES: Final = 128 * 1024
"""Bytes of documents that the engine searches for a pattern between two such looks. It is linear, but for patterns of
many states it reads only a few MB/s."""


_TEXT_BYTES: Final = 128
"""A text takes as long as so many bytes, however short it is."""


def candidate_rows(where: DocumentContains | DocumentRegex, index: TextIndex) -> BitMap | None:
    """Rows among which are all that match the positive form of the clause; None when the index excludes no row. Raises
    InvalidArgument for a pattern that the engine refuses.
    """
    if isinstance(where, DocumentContains):
        return index.candidates(where.text)
    compile_regex(where.pattern)  # the parser takes only patterns that the engine accepts
    requirement = required_texts(where.pattern)
    return None if requirement is None else _rows_meeting(requirement, index)


def _rows_meeting(requirement: Requirement, index: TextIndex) -> BitMap | None:
    """Rows among which are all that meet the requirement; None when the index excludes no row."""
    if isinstance(requirement, RequiredText):
        return index.candidates(requirement.text)
    found = [_rows_meeting(part, index) for part in requirement.requirements]
    known = [rows for rows in found if rows is not None]
    if isinstance(requirement, AllRequired):
        return BitMap.intersection(*known) if known else None
    return BitMap.union(*known) if len(known) == len(found) else None


def containing(documents: pa.Array, text: str) -> Mask:
    """Which documents contain `text`, case-sensitively. The empty text is in every document; a row without a document
    (null) never matches.
    """
    if not text:
        return _mask(pc.is_valid(documents))
    find, wanted = pc.match_substring_regex, re.escape(text)
    if len(text.encode()) > _RE2_LITERAL_BYTES_MAX:
        find, wanted = pc.match_substring, text
    found = np.zeros(len(documents), np.bool_)
    for begin, end in _chunks(documents, _LITERAL_CHUNK_ROWS):
        work.check()
        found[begin:end] = _mask(find(documents.slice(begin, end - begin), wanted))
    return found


def matching(documents: pa.Array, pattern: str) -> Mask:
    """Which documents the pattern matches somewhere; a row without a document (null) never matches. Raises
    InvalidArgument for a pattern that the engine refuses.
    """
    matcher = compile_regex(pattern)
    if _METACHARACTERS.isdisjoint(pattern):
        return containing(documents, pattern)
    found = np.zeros(len(documents), dtype=bool)
    for begin, end in _chunks(documents, _CHUNK_ROWS):
        found[begin:end] = _matching_chunk(documents.slice(begin, end - begin), matcher)
    return found


def _chunks(documents: pa.Array, rows_max: int) -> Iterator[tuple[int, int]]:
    """Half-open ranges of up to `rows_max` rows that together are the column, each within the bytes of a chunk; a
    single document may be longer than that.
    """
    ends = np.cumsum(pc.fill_null(pc.binary_length(documents), 0).to_numpy(), dtype=np.int64)
    begin, bytes_before = 0, 0
    while begin < len(documents):
        end = int(np.searchsorted(ends, bytes_before + _CHUNK_BYTES, side="right"))
        end = min(max(end, begin + 1), begin + rows_max, len(documents))
        yield begin, end
        begin, bytes_before = end, int(ends[end - 1])


def _matching_chunk(chunk: pa.Array, matcher: Matcher) -> list[bool]:
    matches = matcher.matches
    return [text is not None and matches(text) for text in _checked(chunk.to_pylist())]


def _checked(texts: list[str | None]) -> Iterator[str | None]:
    """The texts, with a look at whether the work is still wanted before every _CHECKED_BYTES of them."""
    left = 0
    for text in texts:
        if left <= 0:
            work.check()
            left = _CHECKED_BYTES
        left -= _TEXT_BYTES if text is None else _TEXT_BYTES + len(text)
        yield text


def _mask(found: pa.BooleanArray) -> Mask:
    mask: Mask = pc.fill_null(found, False).to_numpy(zero_copy_only=False)
    return mask
