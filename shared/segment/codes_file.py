"""The codes of a segment's vectors (`shared.vectors.codes`) in a file (drawn in `format`): written once, mapped."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import numpy as np

from shared.errors import Corrupt
from shared.segment.format import CODES_MAGIC, HEADER_BYTES
from shared.segment.mapping import map_bytes
from shared.vectors.codes import TERMS, Codes

_LINE_BYTES: Final = 64
"""A line of the processor's cache. The numbers begin at a multiple of it, so that a row touches as few as it can."""


def write_codes(path: Path, codes: Codes) -> None:
    """Writes the file drawn in `format`."""
    rows, dimension = codes.numbers.shape
    with path.open("wb") as file:
        file.write(CODES_MAGIC + rows.to_bytes(8, "little") + dimension.to_bytes(8, "little") + bytes(8))
        file.write(codes.terms.astype("<f4", copy=False).data)
        file.write(bytes(-file.tell() % _LINE_BYTES))
        file.write(codes.numbers.data)


def open_codes(path: Path, rows: int, dimension: int) -> Codes:
    """The codes in a file, mapped. Raises Corrupt when it is not of `rows` vectors of `dimension` dimensions."""
    mapped = map_bytes(path, HEADER_BYTES)
    header = mapped[:HEADER_BYTES].tobytes()
    found = tuple(int.from_bytes(header[at : at + 8], "little") for at in (8, 16))
    ends = HEADER_BYTES + 4 * TERMS * rows
    begin = ends + -ends % _LINE_BYTES
    if header[:8] != CODES_MAGIC or found != (rows, dimension) or len(mapped) != begin + rows * dimension:
        raise Corrupt(f"{path.name} has no codes of {rows} vectors of {dimension} dimensions")
    terms = mapped[HEADER_BYTES:ends].view("<f4").reshape(rows, TERMS)
    return Codes(mapped[begin:].view(np.int8).reshape(rows, dimension), terms)
