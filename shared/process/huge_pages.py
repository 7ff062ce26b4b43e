"""Large pages for memory that is read at random.

A search of a graph reads some thousand places in a hundred MiB: with pages of 4 KiB nearly each of them has to be
looked up in the page tables first. In pages of 2 MiB a search takes a fifth less. The memory comes from libraries that
do not ask for them, so it is moved there afterwards.
"""

from __future__ import annotations

import contextlib
import ctypes
from collections.abc import Iterator
from pathlib import Path
from typing import Final

REGION_BYTES_MIN: Final = 4 * 1024 * 1024
"""Smaller regions are not worth the moving, in bytes."""

_PAGE_BYTES: Final = 2 * 1024 * 1024
_MADV_HUGEPAGE: Final = 14
_MADV_COLLAPSE: Final = 25
"""Linux's numbers of these. The second moves at once the pages that are there already (since 6.1); without it the
kernel does so by and by."""

_MAPS: Final = Path("/proc/self/maps")


@contextlib.contextmanager
def in_huge_pages() -> Iterator[None]:
    """A context whose large allocations lie in huge pages when it ends. Where the system has none, or does not give
    them on demand, they stay where they are.
    """
    before = _regions()
    yield
    madvise = getattr(ctypes.CDLL(None), "madvise", None)
    if madvise is None:
        return
    for begin, end in _regions() - before:
        begin = -(-begin // _PAGE_BYTES) * _PAGE_BYTES  # noqa: PLW2901 (rounded up)
        size = end - begin
        if size > 0 and madvise(ctypes.c_void_p(begin), ctypes.c_size_t(size), _MADV_HUGEPAGE) == 0:
            # As many as there are; a refusal means that they stay small, or move later.
            madvise(ctypes.c_void_p(begin), ctypes.c_size_t(size // _PAGE_BYTES * _PAGE_BYTES), _MADV_COLLAPSE)


def _regions() -> set[tuple[int, int]]:
    """Address ranges [begin, end) of this process's large private memory; none where the system does not list them."""
    if not _MAPS.exists():
        return set()
    found: set[tuple[int, int]] = set()
    for line in _MAPS.read_text().splitlines():
        span, access, _, _, file, *name = line.split(None, 5)
        begin, end = (int(address, 16) for address in span.split("-"))
        if file == "0" and not name and access.startswith("rw") and end - begin >= REGION_BYTES_MIN:
            found.add((begin, end))
    return found
