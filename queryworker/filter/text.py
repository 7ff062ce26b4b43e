"""Documents that contain a text or match a pattern.

Literals are found by RE2 (through Arrow) over the column's own bytes, without the interpreter lock: a literal
means the same to every engine, and RE2 finds it several times faster than Arrow's own substring kernel. Patterns
go to the engine that defines them (`shared.records.regex`), document by document; RE2's classes, boundaries and case
folding differ from it in Unicode. A text index says before which documents are worth a look.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pyroaring import BitMap

from queryworker.filter.literals import Every, Need, Occurs, requirement
from shared.records.regex import Matcher, compile_regex
from shared.records.where import DocumentContains, DocumentRegex
from shared.segment.text_index import TextIndex
from shared.vectors.arrays import Mask

_RE2_LITERAL_BYTES_MAX: Final = 4096
"""Beyond this RE2's compiled form grows towards its memory limit, where it refuses."""
_META: Final = frozenset(r"\.+*?()|[]{}^$")
_CHUNK_ROWS: Final = 4096
_CHUNK_BYTES: Final = 16 * 1024 * 1024


def candidates(where: DocumentContains | DocumentRegex, index: TextIndex) -> BitMap | None:
    """Rows among which are all that match the positive form; None when the index excludes none."""
    if isinstance(where, DocumentContains):
        return index.candidates(where.text)
    compile_regex(where.pattern)  # what the engine refuses requires nothing
    need = requirement(where.pattern)
    return None if need is None else _meeting(need, index)


def _meeting(need: Need, index: TextIndex) -> BitMap | None:
    if isinstance(need, Occurs):
        return index.candidates(need.text)
    found = [_meeting(part, index) for part in need.needs]
    known = [rows for rows in found if rows is not None]
    if isinstance(need, Every):
        return BitMap.intersection(*known) if known else None
    return BitMap.union(*known) if len(known) == len(found) else None


def containing(documents: pa.Array, text: str) -> Mask:
    """Rows whose document has `text` as a substring; the empty text is in every document, and no row without one
    matches.
    """
    if not text:
        return _mask(pc.is_valid(documents))
    if len(text.encode()) > _RE2_LITERAL_BYTES_MAX:
        return _mask(pc.match_substring(documents, text))
    return _mask(pc.match_substring_regex(documents, re.escape(text)))


def matching(documents: pa.Array, pattern: str) -> Mask:
    """Rows whose document the pattern occurs in; no row without a document matches."""
    matcher = compile_regex(pattern)
    if _META.isdisjoint(pattern):
        return containing(documents, pattern)
    found = np.zeros(len(documents), dtype=bool)
    for begin, end in _chunks(documents):
        found[begin:end] = _matching_chunk(documents.slice(begin, end - begin), matcher)
    return found


def _chunks(documents: pa.Array) -> Iterator[tuple[int, int]]:
    """Ranges of rows, each bounded in rows and (but for a single document) in bytes: they become objects at once."""
    ends = np.cumsum(pc.fill_null(pc.binary_length(documents), 0).to_numpy(), dtype=np.int64)
    begin, before = 0, 0
    while begin < len(documents):
        end = int(np.searchsorted(ends, before + _CHUNK_BYTES, side="right"))
        end = min(max(end, begin + 1), begin + _CHUNK_ROWS, len(documents))
        yield begin, end
        begin, before = end, int(ends[end - 1])


def _matching_chunk(chunk: pa.Array, matcher: Matcher) -> list[bool]:
    matches = matcher.matches
    return [text is not None and matches(text) for text in chunk.to_pylist()]


def _mask(found: Any) -> Mask:
    mask: Mask = pc.fill_null(found, False).to_numpy(zero_copy_only=False)
    return mask
