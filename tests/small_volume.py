"""A volume of a few MiB that a test can fill: a real one where the test may mount it, and a counted one elsewhere.

Mounting takes rights that not every user and container has. The counted volume is a folder: this process' files below
it refuse a write, as the kernel does on a full volume, when the folder would grow beyond its limit.
"""

from __future__ import annotations

import builtins
import errno
import io
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pytest

VOLUME_BYTES: Final = 4 * 1024 * 1024


@pytest.fixture
def small_volume(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An empty volume of VOLUME_BYTES."""
    root = tmp_path / "volume"
    root.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", f"size={VOLUME_BYTES}", "tmpfs", str(root)]
    if subprocess.run(command, capture_output=True, check=False).returncode:
        count_volume(root, VOLUME_BYTES, monkeypatch)
        yield root
        return
    try:
        yield root
    finally:
        subprocess.run(["umount", str(root)], check=True)


def count_volume(root: Path, bytes_max: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Makes the folder a volume of so many bytes for what this process opens: ENOSPC is raised beyond them."""
    real, ismount = io.open, os.path.ismount

    def opened(file: Any, mode: str = "r", buffering: int = -1, *rest: Any, **named: Any) -> Any:
        writes = "r" not in mode or "+" in mode
        if not writes or isinstance(file, int) or not Path(os.fsdecode(file)).is_relative_to(root):
            return real(file, mode, buffering, *rest, **named)
        assert "b" in mode, "nothing in the cache writes text"
        raw = _CountedFile(file, mode.replace("b", ""), root, bytes_max)
        return raw if buffering == 0 else io.BufferedRandom(raw) if "+" in mode else io.BufferedWriter(raw)

    monkeypatch.setattr(os.path, "ismount", lambda path: Path(path) == root or ismount(path))
    monkeypatch.setattr(io, "open", opened)
    monkeypatch.setattr(builtins, "open", opened)


class _CountedFile(io.FileIO):
    def __init__(self, file: Any, mode: str, root: Path, bytes_max: int) -> None:
        super().__init__(file, mode)
        self._root = root
        self._bytes_max = bytes_max

    def write(self, data: Any) -> int:
        growth = self.tell() + memoryview(data).nbytes - os.fstat(self.fileno()).st_size
        taken = sum(path.stat().st_size for path in self._root.rglob("*") if path.is_file())
        if growth > 0 and taken + growth > self._bytes_max:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), os.fsdecode(self.name))
        return super().write(data)
