"""Full disks: how they are recognised and named, so that people know which one to make room on."""

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
