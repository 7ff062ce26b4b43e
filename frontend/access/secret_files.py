"""Files of secrets that an operator may change while the process runs: the bootstrap key and the users of Basic."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Final, Generic, NamedTuple, TypeVar

from shared.process.telemetry import get_logger
from shared.tenancy.api_keys import digest_of, id_of_key, is_key_id

Content = TypeVar("Content")

FILE_BYTES_MAX: Final = 16 * 1024 * 1024
_DIGEST: Final = re.compile(r"[0-9a-f]{64}", re.ASCII)

log = get_logger(__name__)


class WatchedFile(Generic[Content]):
    """The content that `parse` makes of a file's text, made anew whenever the file was changed or replaced. While it
    cannot be read or parsed, what it was stays, and the log says so once; a file that is gone has `nothing` in it.
    """

    def __init__(self, path: Path, parse: Callable[[str], Content], nothing: Content) -> None:
        self._path = path
        self._parse = parse
        self._nothing = nothing
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
            changed = self._seen != "gone"
            self._seen, self.content = "gone", self._nothing
            return changed
        except (OSError, ValueError) as error:
            if first:
                raise
            log.error("secret_file_not_read", path=str(self._path), message=str(error))  # noqa: TRY400 (no stack: it could hold the text)
            return False
        return True


def _version(path: Path) -> tuple[int, ...]:
    found = path.stat()
    return (found.st_ino, found.st_mtime_ns, found.st_size)


def _text(path: Path) -> str:
    with path.open("rb") as file:
        if os.fstat(file.fileno()).st_size > FILE_BYTES_MAX:
            raise ValueError(f"{path} is longer than {FILE_BYTES_MAX} bytes")
        return file.read().decode()


def parse_bootstrap(text: str) -> str:
    """The hash (SHA-256 in hex) of the bootstrap key, from a file that has it or the key itself. Raises ValueError."""
    stripped = text.strip()
    if _DIGEST.fullmatch(stripped):
        return stripped
    if id_of_key(stripped) is None:
        raise ValueError("expected an API key (pck_...), or the SHA-256 of one in hex")
    return digest_of(stripped)


class User(NamedTuple):
    """A user of Basic: the argon2 hash of the password, and the id of the key record whose scope the user has."""

    password_hash: str
    key_id: str


def parse_users(text: str) -> dict[str, User]:
    """The users by their names, from lines `name:argon2 hash:key record id`; empty lines and those that begin with `#`
    say nothing. Raises ValueError that names the line, never what is in it.
    """
    users: dict[str, User] = {}
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip() or line.startswith("#"):
            continue
        name, colon, rest = line.strip().partition(":")
        password_hash, other, key_id = rest.rpartition(":")
        if not (name and colon and other) or not password_hash.startswith("$argon2") or not is_key_id(key_id):
            raise ValueError(f"line {number}: expected name:argon2 hash:key id")
        if name in users:
            raise ValueError(f"line {number}: this user was named before")
        users[name] = User(password_hash, key_id)
    return users
