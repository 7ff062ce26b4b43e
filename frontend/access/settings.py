"""The settings of authentication: their checks, and what is built of them."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from frontend.access.authenticator import Authenticator, KeyRecords, VerifyPassword, VerifyToken
from frontend.access.claims import ClaimMap
from frontend.access.secret_files import parse_bootstrap, parse_users
from shared.process.clock import Clock
from shared.process.config import parse_names
from shared.process.loopback import is_loopback
from shared.process.watched_file import WatchedFile

OFF: Final = "off"
KEYS: Final = "keys"
OFF_ON_EVERY_ADDRESS: Final = "off-on-every-address"
MODES: Final = (OFF, KEYS, OFF_ON_EVERY_ADDRESS)
JWT_ALGORITHMS: Final = ("ES256", "RS256")

Fetch = Callable[[str], Awaitable[bytes]]
"""Reads the issuer's key set from a URL."""


@dataclass(frozen=True)
class AccessSettings:
    """The settings of authentication; documented in `frontend.config`."""

    mode: str = OFF
    stale_s: float = 30.0
    bootstrap_key_file: Path | None = None
    users_file: Path | None = None
    jwt_keys: str = ""
    jwt_issuer: str = ""
    jwt_audience: str = ""
    jwt_algorithms: tuple[str, ...] = JWT_ALGORITHMS
    jwt_claims: ClaimMap | None = None

    @property
    def on(self) -> bool:
        """Whether requests need a credential."""
        return self.mode == KEYS

    def problems(self, host: str) -> list[str]:
        """The reasons why a frontend with these settings must not listen on `host`, one sentence each."""
        found: list[str] = []
        if self.mode == OFF and not is_loopback(host):
            found.append(not_alone(host or "every address"))
        of_keys = [self.bootstrap_key_file, self.users_file, self.jwt_keys]
        if not self.on and any(of_keys):
            found.append("POLYCHROME_FRONTEND_AUTH is off, and there are credentials: set it to `keys`")
        if self.jwt_keys and not (self.jwt_issuer and self.jwt_audience and self.jwt_claims):
            found.append("POLYCHROME_FRONTEND_JWT_KEYS needs _JWT_ISSUER, _JWT_AUDIENCE and _JWT_CLAIMS beside it")
        return found


def not_alone(address: str) -> str:
    """The sentence about a listener that others than this machine can reach."""
    return (
        f"listening on {address} without authentication lets everybody who reaches it do everything: set "
        f"POLYCHROME_FRONTEND_AUTH to `{KEYS}`, or to `{OFF_ON_EVERY_ADDRESS}` if that is meant"
    )


def parse_mode(text: str) -> str:
    """Whether there is authentication. Raises ValueError with a sentence."""
    if text not in MODES:
        raise ValueError(f"expected one of {', '.join(MODES)}")
    return text


def parse_file(text: str) -> Path | None:
    """The path of a file, None of an empty text. Raises nothing."""
    return Path(text) if text else None


def parse_algorithms(text: str) -> tuple[str, ...]:
    """Names of signature algorithms with public keys, separated by commas. Raises ValueError with a sentence."""
    from frontend.access.tokens import ALGORITHMS

    names = parse_names(text)
    if not names or not set(names) <= set(ALGORITHMS):
        raise ValueError(f"expected some of {', '.join(ALGORITHMS)}")
    return names


def parse_jwt_keys(text: str) -> str:
    """The place of the issuer's key set: a path, or a URL. Raises ValueError with a sentence."""
    scheme, host = (parts := urlsplit(text)).scheme, parts.hostname
    if scheme in ("", "https") or (scheme == "http" and host is not None and is_loopback(host)):
        return text
    raise ValueError("expected a file, or an https:// URL (http:// on this machine alone)")


def build_authenticator(settings: AccessSettings, records: KeyRecords, clock: Clock, fetch: Fetch) -> Authenticator:
    """The authenticator of a frontend. What it needs of libraries is imported only when it is needed."""
    bootstrap, users = settings.bootstrap_key_file, settings.users_file
    return Authenticator(
        records,
        clock,
        bootstrap=None if bootstrap is None else WatchedFile(bootstrap, parse_bootstrap, ""),
        users=None if users is None else WatchedFile(users, parse_users, {}),
        verify_password=None if users is None else _password_verifier(),
        verify_token=_token_verifier(settings, clock, fetch),
        stale_s=settings.stale_s,
    )


def _password_verifier() -> VerifyPassword:
    from frontend.access.passwords import verify_password

    return verify_password


def _token_verifier(settings: AccessSettings, clock: Clock, fetch: Fetch) -> VerifyToken | None:
    if not settings.jwt_keys or settings.jwt_claims is None:
        return None
    from frontend.access.tokens import KeySet, TokenVerifier

    async def read() -> bytes:
        return await fetch(settings.jwt_keys)

    return TokenVerifier(
        KeySet(read, clock), settings.jwt_issuer, settings.jwt_audience, settings.jwt_algorithms, settings.jwt_claims
    )
