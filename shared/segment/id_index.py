"""The index from ids to rows: sorted hashes beside their rows (drawn in `format`), proved against the id column.

Many ids are looked up by numpy, whose calls take 15 us before the first id is found; a handful is faster looked up one
after the other.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import numpy as np
import pyarrow as pa
import xxhash

from shared.errors import Corrupt
from shared.segment.format import HEADER_BYTES, IDS_MAGIC
from shared.segment.mapping import map_bytes
from shared.segment.text_reader import TextReader
from shared.vectors.arrays import Hashes, RowNumbers

ONE_BY_ONE_MAX: Final = 16
"""More ids than this are looked up by numpy, all at once."""


def _hashes(ids: Sequence[str], seed: int) -> Hashes:
    """The xxh3-64 of each id's UTF-8 bytes."""
    return np.fromiter((xxhash.xxh3_64_intdigest(i.encode(), seed) for i in ids), dtype=np.uint64, count=len(ids))


def write_id_index(path: Path, ids: Sequence[str], segment_id: str) -> None:
    """Writes the index of `ids`, in row order; the segment's id seeds the hash."""
    seed = xxhash.xxh3_64_intdigest(segment_id.encode())
    hashes = _hashes(ids, seed)
    order = np.argsort(hashes, kind="stable")
    with path.open("wb") as file:
        file.write(IDS_MAGIC + len(ids).to_bytes(8, "little") + seed.to_bytes(8, "little") + bytes(8))
        file.write(hashes[order].astype("<u8").data)
        file.write(order.astype("<u4").data)


class IdIndex:
    """The mapped index of one segment, whose id column is `column`. Any number of threads may use it. Raises Corrupt
    for a file that is not the index of as many ids.
    """

    def __init__(self, path: Path, column: pa.Array) -> None:
        mapped = map_bytes(path, HEADER_BYTES)
        rows = len(column)
        header = mapped[:HEADER_BYTES].tobytes()
        if header[:8] != IDS_MAGIC or int.from_bytes(header[8:16], "little") != rows:
            raise Corrupt(f"{path.name} is no index of {rows} ids")
        if len(mapped) != HEADER_BYTES + 12 * rows:
            raise Corrupt(f"{path.name} has {len(mapped)} bytes")
        self._seed = int.from_bytes(header[16:24], "little")
        self._hashes = mapped[HEADER_BYTES : HEADER_BYTES + 8 * rows].view("<u8")
        self._rows = mapped[HEADER_BYTES + 8 * rows :].view("<u4")
        # The same for single items, which numpy would wrap.
        self._each_hash = self._hashes.view(np.uint8).data.cast("Q")
        self._each_row = self._rows.view(np.uint8).data.cast("I")
        self._ids = TextReader(column)

    def find(self, ids: Sequence[str]) -> list[int]:
        """The row of each id, -1 where it is missing.

        A segment whose graph was extended keeps dead rows, so an id can stand in it twice. The greatest row is
        meant: new rows are appended, hence an older row of the same id was dead already when the segment was written.
        """
        if len(ids) <= ONE_BY_ONE_MAX:
            return [self._find_one(id_) for id_ in ids]
        rows: list[int] = self._find_column(ids).tolist()
        return rows

    def _find_one(self, id_: str) -> int:
        hashes, wanted = self._each_hash, xxhash.xxh3_64_intdigest(id_.encode(), self._seed)
        place = bisect_right(hashes, wanted) - 1
        while place >= 0 and hashes[place] == wanted:
            row: int = self._each_row[place]
            if self._ids.text(row) == id_:
                return row
            place -= 1
        return -1

    def _find_column(self, ids: Sequence[str]) -> RowNumbers:
        found = np.full(len(ids), -1, dtype=np.int64)
        wanted = _hashes(ids, self._seed)
        place = np.searchsorted(self._hashes, wanted, side="right").astype(np.int64) - 1
        asked = np.arange(len(ids))
        # One round for nearly every id; another only where a different id has the same hash.
        while True:
            hit = place >= 0
            hit[hit] = self._hashes[place[hit]] == wanted[hit]
            asked, place, wanted = asked[hit], place[hit], wanted[hit]
            if not len(asked):
                return found
            rows = self._rows[place].astype(np.int64)
            stored = self._ids.read(rows)
            same = np.array([ids[i] == text for i, text in zip(asked.tolist(), stored, strict=True)], dtype=bool)
            found[asked[same]] = rows[same]
            asked, place, wanted = asked[~same], place[~same] - 1, wanted[~same]
