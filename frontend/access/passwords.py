"""Passwords of Basic, verified against argon2 hashes in a thread: 64 MiB and tens of milliseconds each, on purpose."""

from __future__ import annotations

import asyncio
import functools
from typing import Final

from argon2 import PasswordHasher
from argon2.exceptions import Argon2Error, InvalidHashError

from frontend.access.secret_files import User

PASSWORD_BYTES_MAX: Final = 1024

_HASHER: Final = PasswordHasher()


@functools.cache
def _nobody() -> str:
    """The hash that is compared for a user that there is not, so that it takes as long."""
    return _HASHER.hash("nobody")


async def verify_password(user: User | None, password: str) -> bool:
    """Whether the password is the user's. Takes as long for a user that there is not."""
    return await asyncio.to_thread(_verify, user, password)


def _verify(user: User | None, password: str) -> bool:
    if len(password.encode()) > PASSWORD_BYTES_MAX:
        return False
    try:
        return _HASHER.verify(user.password_hash if user else _nobody(), password) and user is not None
    except (Argon2Error, InvalidHashError):
        return False


def hash_password(password: str) -> str:
    """The hash of a password for the file of users."""
    return _HASHER.hash(password)
