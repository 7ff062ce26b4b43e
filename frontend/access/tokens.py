"""Tokens (JWT) of an issuer that the operator trusts, verified by PyJWT.

What a token says of itself decides nothing: the algorithms, the issuer, the audience and the place of the key set come
from the operator alone. Algorithms are signatures with a public key; a shared secret, or `none`, is no algorithm here.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Final

import jwt

from frontend.access.claims import ClaimMap, principal_of
from shared.errors import Unauthenticated, Unavailable
from shared.process.clock import Clock
from shared.process.telemetry import get_logger
from shared.tenancy.principal import Principal

ALGORITHMS: Final = ("ES256", "ES384", "ES512", "EdDSA", "PS256", "PS384", "PS512", "RS256", "RS384", "RS512")
"""Algorithms that a configuration may name."""
REQUIRED: Final = ("exp", "iss", "aud", "sub")
LEEWAY_S: Final = 10.0
"""Difference between our clock and the issuer's that is borne, in seconds."""
FRESH_S: Final = 300.0
"""Age at which the key set is read again, in seconds."""
USABLE_S: Final = 3600.0
"""Age at which a key set that could not be read again is of no use any more, in seconds."""
RETRY_S: Final = 10.0
"""Shortest time between two readings, whatever keys tokens name, in seconds."""

REFUSED: Final = "The token is not valid"

log = get_logger(__name__)


class KeySet:
    """The issuer's public keys, read by `fetch` (JSON of a JWK set), and again when a token names a key that is not
    among them: that is how an issuer changes its keys.
    """

    def __init__(self, fetch: Callable[[], Awaitable[bytes]], clock: Clock) -> None:
        self._fetch = fetch
        self._clock = clock
        self._keys: list[jwt.PyJWK] = []
        self._read_s = float("-inf")
        self._tried_s = float("-inf")
        self._reading = asyncio.Lock()

    async def find(self, kid: str | None) -> jwt.PyJWK:
        """The key that a token names; the only key for a token that names none. Raises Unauthenticated, and Unavailable
        when the set has not been readable for `USABLE_S`.
        """
        found = self._known(kid)
        if found is None or self._clock.monotonic() - self._read_s > FRESH_S:
            await self.read()
            found = self._known(kid)
        if self._clock.monotonic() - self._read_s > USABLE_S:
            raise Unavailable("The issuer's keys could not be read")
        if found is None:
            raise Unauthenticated(REFUSED)
        return found

    def _known(self, kid: str | None) -> jwt.PyJWK | None:
        if kid is None:
            return self._keys[0] if len(self._keys) == 1 else None
        return next((key for key in self._keys if key.key_id == kid), None)

    async def read(self) -> None:
        """Reads the set, unless that was tried a moment ago. What cannot be read is said in the log."""
        async with self._reading:
            if self._clock.monotonic() - self._tried_s < RETRY_S:
                return
            self._tried_s = self._clock.monotonic()
            try:
                self._keys = parse_key_set(await self._fetch())
                self._read_s = self._clock.monotonic()
            except (OSError, ValueError, TimeoutError, Unavailable) as error:
                log.warning("issuer_keys_not_read", message=str(error))


def parse_key_set(data: bytes) -> list[jwt.PyJWK]:
    """The keys for signatures in a JWK set. Raises ValueError."""
    try:
        found: Any = json.loads(data)
        members = [key for key in found["keys"] if key.get("use", "sig") == "sig" and key.get("kty") != "oct"]
        return list(jwt.PyJWKSet.from_dict({"keys": members}))
    except (jwt.PyJWTError, KeyError, TypeError, AttributeError, UnicodeDecodeError) as error:
        raise ValueError(f"not a JWK set: {error}") from error


class TokenVerifier:
    """Verifies tokens of one issuer for one audience, signed by one of these algorithms."""

    def __init__(self, keys: KeySet, issuer: str, audience: str, algorithms: Sequence[str], mapping: ClaimMap) -> None:
        self._keys = keys
        self._issuer = issuer
        self._audience = audience
        self._algorithms = tuple(algorithms)
        self._mapping = mapping

    async def __call__(self, text: str) -> tuple[Principal, float]:
        """The principal of a token, and when the token expires, in seconds since the epoch by the machine's clock.
        Raises Unauthenticated, Unavailable.
        """
        kid = self._kid(text)
        key = await self._keys.find(kid)
        claims = await asyncio.to_thread(self._claims, text, key)
        return principal_of(claims, self._mapping), float(claims["exp"])

    def _kid(self, text: str) -> str | None:
        """The key that the token's header names. Raises Unauthenticated for a header that is none, or names an
        algorithm that is not one of ours, before any key is looked for.
        """
        try:
            header = jwt.get_unverified_header(text)
        except jwt.PyJWTError:
            raise Unauthenticated(REFUSED) from None
        kid = header.get("kid")
        if header.get("alg") not in self._algorithms or not (kid is None or isinstance(kid, str)):
            raise Unauthenticated(REFUSED)
        return kid

    def _claims(self, text: str, key: jwt.PyJWK) -> dict[str, Any]:
        try:
            return jwt.decode(
                text,
                key,
                algorithms=self._algorithms,
                audience=self._audience,
                issuer=self._issuer,
                leeway=LEEWAY_S,
                options={"require": list(REQUIRED), "enforce_minimum_key_length": True},
            )
        except jwt.PyJWTError as error:
            log.debug("token_refused", message=str(error))
            raise Unauthenticated(REFUSED) from None
