"""A file as read-only bytes in memory, without reading it."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from shared.errors import Corrupt
from shared.vectors.arrays import Uint8Array


def map_bytes(path: Path, header_bytes: int) -> Uint8Array:
    """The mapped file, uint8 [bytes], read-only. The mapping lives as long as a view of it. Raises Corrupt when the
    file is shorter than its header.
    """
    if path.stat().st_size < header_bytes:
        raise Corrupt(f"{path.name} is cut")
    return np.memmap(path, dtype=np.uint8, mode="r").view(np.ndarray)
