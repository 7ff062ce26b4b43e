"""Documents that contain a text or match a pattern.

Literals are found by RE2 (through Arrow) over the column's own bytes, without the interpreter lock: a literal
means the same to every engine, and RE2 finds it several times faster than Arrow's own substring kernel. Patterns
go to the engine that defines them (`shared.regex`), document by document; RE2's classes, boundaries and case
folding differ from it in Unicode.
"""

from __future__ import annotations

import re
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from shared.regex import Matcher, compile_regex

Mask = npt.NDArray[np.bool_]

_RE2_LITERAL_BYTES_MAX: Final = 4096
"""Beyond this RE2's compiled form grows towards its memory limit, where it refuses."""
_META: Final = frozenset(r"\.+*?()|[]{}^$")
_CHUNK_ROWS: Final = 4096


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
    for at in range(0, len(documents), _CHUNK_ROWS):
        chunk = documents.slice(at, _CHUNK_ROWS)
        found[at : at + len(chunk)] = _matching_chunk(chunk, matcher)
    return found


def _matching_chunk(chunk: pa.Array, matcher: Matcher) -> list[bool]:
    matches = matcher.matches
    return [text is not None and matches(text) for text in chunk.to_pylist()]


def _mask(found: Any) -> Mask:
    mask: Mask = pc.fill_null(found, False).to_numpy(zero_copy_only=False)
    return mask
