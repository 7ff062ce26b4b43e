"""The files of credentials: the bootstrap key, and the users of Basic."""

from __future__ import annotations

import re
from typing import Final, NamedTuple

from shared.tenancy.api_keys import digest_of, id_of_key, is_key_id

_DIGEST: Final = re.compile(r"[0-9a-f]{64}", re.ASCII)


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
