"""Files, of secrets mostly, that an operator may change while the process runs."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Final, Generic, TypeVar

from shared.process.telemetry import get_logger

Content = TypeVar("Content")

FILE_BYTES_MAX: Final = 16 * 1024 * 1024

log = get_logger(__name__)


class WatchedFile(Generic[Content]):
    """The content that `parse` makes of a file's text, made anew whenever the file was changed or replaced. While it
    cannot be read or parsed, what it was stays, and the log says so once; a file that is gone has `nothing` in it, or,
    with `keep`, what it was.
    """

    def __init__(self, path: Path, parse: Callable[[str], Content], nothing: Content, *, keep: bool = False) -> None:
        self._path = path
        self._parse = parse
        self._nothing = nothing
        self._keep = keep
        self._seen: object = None
        self.content = nothing

    def load(self) -> bool:
        """Reads the file if it has changed; whether it has. Raises OSError and ValueError at the first reading, so that
        a process with a wrong file does not start.
        """
        first = self._seen is None
        try:
            seen = _version(self._path)
            if seen == self._seen:
                return False
            self._seen = seen
            self.content = self._parse(_text(self._path))
        except FileNotFoundError:
            if first:
                raise
            return self._gone()
        except (OSError, ValueError) as error:
            if first:
                raise
            log.error("secret_file_not_read", path=str(self._path), message=str(error))  # noqa: TRY400 (no stack: it could hold the text)
            return False
        return True

    def _gone(self) -> bool:
        """The file is not there any more; whether that is new and has changed the content."""
        changed = self._seen != "gone"
        self._seen = "gone"
        if changed and self._keep:
            log.error("secret_file_not_read", path=str(self._path), message="the file is gone")
        if not self._keep:
            self.content = self._nothing
        return changed and not self._keep


def _version(path: Path) -> tuple[int, ...]:
    found = path.stat()
    return (found.st_ino, found.st_mtime_ns, found.st_size)


def _text(path: Path) -> str:
    with path.open("rb") as file:
        if os.fstat(file.fileno()).st_size > FILE_BYTES_MAX:
            raise ValueError(f"{path} is longer than {FILE_BYTES_MAX} bytes")
        return file.read().decode()
