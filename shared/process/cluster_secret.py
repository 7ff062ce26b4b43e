"""The secret by which the processes of a cluster know each other, in a file that an operator may change.

One line, or two while the secret is rotated: the first one is used, both are accepted. To rotate it, write the new one
above the old one on all machines, then, when all processes have read that (`ROTATION_CHECK_S`), remove the old one.
"""

from __future__ import annotations

import hmac
import secrets
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from shared.process.config import OFF_ON_EVERY_ADDRESS, REQUIRED, ConfigError, ProcessConfig
from shared.process.loopback import is_loopback
from shared.process.watched_file import WatchedFile

SECRETS_MAX: Final = 2
"""Secrets that a cluster accepts at once."""

SECRET_CHARACTERS_MIN: Final = 32
"""A shorter secret could be guessed: whoever reads the wire can try one after the other in peace."""

ROTATION_CHECK_S: Final = 2.0
"""Time after which a server looks at the file again, in seconds."""


def open_cluster_secret(config: ProcessConfig) -> ClusterSecret | None:
    """The cluster's secret, read; None in a cluster without one. Raises ConfigError when the file is not as it must
    be.
    """
    path = config.cluster_secret_file
    if path is None:
        return None
    secret = ClusterSecret(path)
    try:
        secret.load()
    except (OSError, ValueError) as error:
        raise ConfigError([f"POLYCHROME_CLUSTER_SECRET_FILE cannot be used: {error}"]) from error
    return secret


def check_exposure(config: ProcessConfig, host: str) -> None:
    """Raises ConfigError for a port of calls between processes that others can reach, and that would answer anybody."""
    if config.cluster_secret_file is None and config.cluster_auth == REQUIRED and not is_loopback(host):
        problem = (
            f"listening on {host or 'every address'} without a cluster secret lets everybody who reaches it read the "
            "data of all tenants: set POLYCHROME_CLUSTER_SECRET_FILE, or POLYCHROME_CLUSTER_AUTH to "
            f"`{OFF_ON_EVERY_ADDRESS}` if that is meant"
        )
        raise ConfigError([problem])


class ClusterSecret:
    """The secrets in a file, the one to use first. A file that vanishes or becomes wrong changes nothing."""

    def __init__(self, path: Path) -> None:
        self._file: WatchedFile[tuple[bytes, ...]] = WatchedFile(path, parse_secrets, (), keep=True)

    def load(self) -> bool:
        """Reads the file if it has changed; whether it has. Raises OSError and ValueError at the first reading."""
        return self._file.load()

    def current(self) -> Sequence[bytes]:
        """The secrets as the file has them now. Raises OSError and ValueError at the first reading."""
        self._file.load()
        return self._file.content

    def is_bearer(self, authorization: str | None) -> bool:
        """Whether the header `Authorization` of a request has one of the secrets as its bearer token."""
        scheme, _, token = (authorization or "").strip().partition(" ")
        given = token.strip().encode("utf-8", "surrogateescape")
        found = [hmac.compare_digest(given, secret) for secret in self.current()]  # all of them: no early end
        return scheme.lower() == "bearer" and any(found)


def parse_secrets(text: str) -> tuple[bytes, ...]:
    """The secrets in a file: lines that are not empty and do not begin with `#`. Raises ValueError, which never has
    anything of the file in it.
    """
    lines = [line.strip() for line in text.splitlines() if line.strip() and not line.startswith("#")]
    if not 1 <= len(lines) <= SECRETS_MAX:
        raise ValueError(f"expected a secret, or two while it is rotated, not {len(lines)}")
    if any(len(line) < SECRET_CHARACTERS_MIN for line in lines):
        raise ValueError(f"a secret has at least {SECRET_CHARACTERS_MIN} characters, drawn at random")
    if len(set(lines)) != len(lines):
        raise ValueError("the same secret twice")
    return tuple(line.encode() for line in lines)


def new_secret() -> str:
    """A secret drawn at random, 43 characters of 256 bits."""
    return secrets.token_urlsafe(32)
