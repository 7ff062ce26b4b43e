"""Disks: which one is full, in words that say where to make room, and how a file's name is made durable."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Final

_FULL: Final = frozenset({errno.ENOSPC, errno.EDQUOT})
_MIB: Final = 1024 * 1024


def is_full(error: BaseException) -> bool:
    """Whether this is the error of a write that found no room on its disk, or a quota used up."""
    return isinstance(error, OSError) and error.errno in _FULL


def free_bytes(path: Path) -> int:
    """Bytes that may still be written on the disk of `path`, which exists. Raises OSError."""
    found = os.statvfs(path)
    return found.f_bavail * found.f_frsize


def full_disk(path: Path) -> str:
    """A phrase for people: which disk `path` is on, that it is full, and what is free there."""
    existing = next((each for each in (path, *path.parents) if each.exists()), Path("/"))
    mount = next((each for each in (existing, *existing.parents) if each.is_mount()), existing)
    found = os.statvfs(existing)
    free, size = found.f_bavail * found.f_frsize / _MIB, found.f_blocks * found.f_frsize / _MIB
    return f"the disk of {path} is full ({free:.1f} of {size:.0f} MiB free on {mount})"


def sync_folder(folder: Path) -> None:
    """Makes the names in a folder durable, which the fsync of the files themselves does not. Raises OSError."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
