"""A real volume of a few MiB, mounted for processes that a test starts."""

from __future__ import annotations

import contextlib
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

import pytest

Mount = Callable[[Path, int], Path]
MIB: Final = 1024 * 1024


@pytest.fixture
def mount() -> Iterator[Mount]:
    """Makes a folder a volume of so many MiB. Skips the test where mounting is not allowed: as another user than root,
    and in most containers.
    """
    with contextlib.ExitStack() as stack:

        def mounted(folder: Path, size_mib: int) -> Path:
            folder.mkdir(parents=True, exist_ok=True)
            command = ["mount", "-t", "tmpfs", "-o", f"size={size_mib}m", "tmpfs", str(folder)]
            if subprocess.run(command, capture_output=True, check=False).returncode:
                pytest.skip("mounting a volume is not allowed here")
            stack.callback(subprocess.run, ["umount", "--lazy", str(folder)], check=True)
            return folder

        yield mounted


def fill(folder: Path) -> Path:
    """Takes all the room that is left on the folder's volume; returns the file that has it."""
    path = folder / "filler"
    with path.open("ab", buffering=0) as file:
        for size in (MIB, 4096, 1):
            with contextlib.suppress(OSError):
                while file.write(bytes(size)) == size:
                    pass
    return path
