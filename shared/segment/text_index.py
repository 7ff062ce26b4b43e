"""The trigram index, for documents that may contain a text: per trigram of bytes, the rows of the documents that have
it.

A trigram is three consecutive bytes of a document's UTF-8, ASCII letters folded to lower case so that one index serves
patterns that ignore case as well. Bytes rather than code points: no decoding, one rule for every script, a single
letter is enough in a script with three bytes a letter, and a literal's bytes are where the literal is. 16 bits of a
hash stand for the trigram: its *code*. Folding and hashing can only add candidates that do not match, so the caller
reads the documents of the candidates.

The file is drawn in `format`. A lookup reads the pages of the bitmaps that it needs.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Final

import numpy as np
import pyarrow as pa
from pyroaring import BitMap

from shared.errors import Corrupt
from shared.segment.format import HEADER_BYTES, TEXT_MAGIC
from shared.segment.mapping import map_bytes
from shared.vectors.arrays import Int64Array, Uint8Array, Uint16Array, Uint32Array

LITERAL_BYTES_MIN: Final = 3
"""The index says nothing about shorter texts."""

_TRIGRAMS_MAX: Final = 16
"""Number of trigrams of a long literal that are looked up: each further one excludes next to nothing."""

_SORTED_BYTES: Final = 1 << 20
"""Bytes of text that are sorted at a time, so that they stay in the processor's cache."""

_BLOCK_BYTES: Final = 32 << 20
"""Bytes of text that become bitmaps at a time; bounds the memory of a build beside the bitmaps."""

_ROWS_IN_KEY: Final = 1 << 16

_FOLDED: Final = np.arange(256, dtype=np.uint32)
_FOLDED[ord("A") : ord("Z") + 1] += 32


def _codes(first: Uint32Array, second: Uint32Array, third: Uint32Array) -> Uint16Array:
    """The codes [n] of n trigrams, given their first, second and third bytes, folded."""
    trigrams = first << np.uint32(16) | second << np.uint32(8) | third
    return (trigrams * np.uint32(2_654_435_761) >> np.uint32(16)).astype(np.uint16)  # multiplicative hashing


# ---- writing


def write_text_index(
    path: Path, documents: pa.LargeStringArray, prior: Path | None = None, check: Callable[[], None] | None = None
) -> None:
    """Writes the index of a column of documents. `prior` is the index of exactly the first documents: it is extended
    instead of reading them again. `check` is called every second or so; what it raises ends the work. Raises Corrupt
    when `prior` cannot be read.
    """
    indexed = 0
    bitmaps: dict[int, BitMap] = {}
    if prior is not None:
        extended = TextIndex(prior)
        indexed, bitmaps = extended.rows, extended.bitmaps()
        if indexed > len(documents):
            raise ValueError(f"the prior index has {indexed} rows, the segment {len(documents)}")
    _, offsets, data = documents.buffers()
    ends: Int64Array = np.frombuffer(offsets, "<i8")[documents.offset : documents.offset + len(documents) + 1]
    text = np.empty(0, np.uint8) if data is None else np.frombuffer(data, np.uint8)
    for begin, end in _row_ranges(ends, indexed, len(documents), _BLOCK_BYTES):
        if check is not None:
            check()
        _add_block(bitmaps, text, ends, begin, end)
    codes = sorted(bitmaps)
    places = np.zeros(len(codes) + 1, "<u8")
    begin = HEADER_BYTES + places.nbytes + 2 * len(codes)
    with path.open("wb") as file:
        file.write(bytes(begin))
        for number, code in enumerate(codes):
            places[number] = file.tell()
            file.write(bitmaps[code].serialize())
        places[-1] = file.tell()
        file.seek(0)
        file.write(TEXT_MAGIC + len(documents).to_bytes(8, "little") + len(codes).to_bytes(8, "little") + bytes(8))
        file.write(places.data)
        file.write(np.array(codes, "<u2").data)


def _row_ranges(ends: Int64Array, begin: int, end: int, bytes_max: int) -> Iterator[tuple[int, int]]:
    """Cuts the rows [begin, end) into ranges [begin, stop) of about `bytes_max` bytes of text, each of at least one row
    and few enough to be numbered by 16 bits. The text of row i is bytes [ends[i], ends[i + 1]).
    """
    while begin < end:
        stop = int(np.searchsorted(ends, ends[begin] + bytes_max, side="right")) - 1
        stop = min(max(stop, begin + 1), begin + _ROWS_IN_KEY, end)
        yield begin, stop
        begin = stop


def _add_block(bitmaps: dict[int, BitMap], text: Uint8Array, ends: Int64Array, begin: int, end: int) -> None:
    """Adds the trigrams of the rows [begin, end) to the bitmaps. They are sorted range by range, then brought together
    by counting: a code's rows of the first range, of the second, and so on.
    """
    keys = [_keys(text, ends[at : stop + 1], at - begin) for at, stop in _row_ranges(ends, begin, end, _SORTED_BYTES)]
    counts = [np.bincount(of_range >> np.uint32(16), minlength=1 << 16) for of_range in keys]
    total = np.sum(counts, axis=0)
    free = np.cumsum(total) - total  # where the next row of each code goes
    rows = np.empty(int(total.sum()), np.uint32)
    for of_range, count in zip(keys, counts, strict=True):
        first = np.cumsum(count) - count
        places = np.arange(len(of_range)) + np.repeat(free - first, count)
        rows[places] = (of_range & np.uint32(_ROWS_IN_KEY - 1)) + np.uint32(begin)
        free += count
    for code in np.flatnonzero(total).tolist():
        stop = int(free[code])
        # pyroaring takes an array of the standard library at once, one of numpy number by number
        found = BitMap(array("I", rows[stop - int(total[code]) : stop].tobytes()))
        if code in bitmaps:
            bitmaps[code] |= found
        else:
            bitmaps[code] = found


def _keys(text: Uint8Array, ends: Int64Array, first_row: int) -> Uint32Array:
    """Code << 16 | row, ascending, each once, for the documents between `ends`; rows count from `first_row`."""
    begin, end = int(ends[0]), int(ends[-1])
    if end - begin < LITERAL_BYTES_MIN:
        return np.empty(0, np.uint32)
    folded = _FOLDED[text[begin:end]]
    keys = _codes(folded[:-2], folded[1:-1], folded[2:]).astype(np.uint32) << np.uint32(16)
    keys |= np.repeat(np.arange(first_row, first_row + len(ends) - 1, dtype=np.uint32), np.diff(ends))[:-2]
    inside = np.ones(len(folded), np.bool_)  # the last two bytes of a document begin no trigram
    inside[ends[1:][ends[1:] > begin] - begin - 1] = False
    inside[ends[1:][ends[1:] > begin + 1] - begin - 2] = False
    keys = keys[inside[:-2]]
    keys.sort()
    fresh = np.ones(len(keys), np.bool_)
    np.not_equal(keys[1:], keys[:-1], out=fresh[1:])
    return keys[fresh]


# ---- reading


class TextIndex:
    """The mapped index of one segment. Any number of threads may use it. Raises Corrupt for a file that is none."""

    def __init__(self, path: Path) -> None:
        mapped = map_bytes(path, HEADER_BYTES)
        header = mapped[:HEADER_BYTES].tobytes()
        if header[:8] != TEXT_MAGIC:
            raise Corrupt(f"{path.name} is no text index")
        self.rows, count = (int.from_bytes(header[at : at + 8], "little") for at in (8, 16))
        begin = HEADER_BYTES + 8 * (count + 1)
        self._ends = mapped[HEADER_BYTES:begin].view("<u8")
        self._codes = mapped[begin : begin + 2 * count].view("<u2")
        if len(self._codes) != count or int(self._ends[-1]) != len(mapped):
            raise Corrupt(f"{path.name} is cut")
        self._mapped = mapped

    def candidates(self, literal: str) -> BitMap | None:
        """Rows among which are all whose document contains `literal`, whatever the case of its ASCII letters; None when
        the literal is too short to look up.
        """
        wanted = _FOLDED[np.frombuffer(literal.encode(), np.uint8)]
        if len(wanted) < LITERAL_BYTES_MIN:
            return None
        places = np.unique(np.linspace(0, len(wanted) - 3, _TRIGRAMS_MAX).astype(np.int64))
        codes = np.unique(_codes(wanted[places], wanted[places + 1], wanted[places + 2]))
        found = np.searchsorted(self._codes, codes)
        if found[-1] == len(self._codes) or not (self._codes[found] == codes).all():
            return BitMap()  # a trigram that no document has
        spans = sorted(zip(self._ends[found].tolist(), self._ends[found + 1].tolist(), strict=True), key=_length)
        return BitMap.intersection(*(self._bitmap(span) for span in spans))

    def bitmaps(self) -> dict[int, BitMap]:
        """The bitmaps of all codes."""
        ends = self._ends.tolist()
        return dict(zip(self._codes.tolist(), map(self._bitmap, pairwise(ends)), strict=True))

    def _bitmap(self, span: tuple[int, int]) -> BitMap:
        return BitMap.deserialize(self._mapped[span[0] : span[1]].tobytes())


def _length(span: tuple[int, int]) -> int:
    return span[1] - span[0]
