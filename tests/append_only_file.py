"""The append-only file of a server that is down: cut, as a disk does that had not written its end."""

from __future__ import annotations

from pathlib import Path
from typing import Final

MULTI: Final = b"*1\r\n$5\r\nMULTI\r\n"
EXEC: Final = b"*1\r\n$4\r\nEXEC\r\n"


def newest(directory: Path) -> Path:
    """The file that the server appends to."""
    return max((directory / "appendonlydir").glob("*.incr.aof"), key=lambda path: int(path.name.split(".")[-3]))


def boundaries(content: bytes) -> list[int]:
    """The places behind each command that is not within a transaction, and behind each transaction."""
    found, at, within = [], 0, False
    while at < len(content):
        within = (within or content.startswith(MULTI, at)) and not content.startswith(EXEC, at)
        end = content.index(b"\r\n", at)
        parts, at = int(content[at + 1 : end]), end + 2
        for _ in range(parts):
            end = content.index(b"\r\n", at)
            at = end + 2 + int(content[at + 1 : end]) + 2
        if not within:
            found.append(at)
    return found


def cut(directory: Path, lost_min: int, lost_max: int | None = None) -> int:
    """Cuts the file at the boundary of a command, `lost_min` bytes before its end or a little more; all of a shorter
    one. The number of bytes that are lost.
    """
    path = newest(directory)
    content = path.read_bytes()
    keep = max(place for place in [0, *boundaries(content)] if place <= max(0, len(content) - lost_min))
    lost = len(content) - keep
    assert lost_max is None or lost <= lost_max
    path.write_bytes(content[:keep])
    return lost
