"""Keeps web pages out that nobody has allowed: a browser sends whatever a page asks for to every address that it
reaches, this machine included, and such a page need not be able to read the answer to do harm.

Two ways are closed.

1. *A page of another site writes.* It can send a POST without asking first, as long as it looks like a form. Every
   browser adds `Origin` to such a request, or at least `Sec-Fetch-Site`. So a request that changes something and has
   one of them is answered only when it comes from a page of this very host, or of an origin that CORS allows. The
   content type would tell less: a body that declares none is taken, since programs leave it out, and a page can leave
   it out, too.
2. *A page gets a name of its own to point here* (DNS rebinding); then its requests are of the same host. So where no
   credential is needed, a listener on a loopback address answers to `localhost`, to addresses, which no page can claim
   for itself, and to names that were configured.

Programs send none of this, or the right host. Pure.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final
from urllib.parse import urlsplit

from shared.errors import Forbidden

READING: Final = frozenset({"GET", "HEAD", "OPTIONS"})
ANY: Final = "*"
_OTHER_SITES: Final = frozenset({"cross-site", "same-site"})

NOT_ALLOWED_ORIGIN: Final = "Pages of this origin may not change anything here"
NOT_OUR_HOST: Final = "This server does not answer to the name in the Host header"


@dataclass(frozen=True, slots=True)
class BrowserGuard:
    """`origins` are those whose pages may call the API (`*`: any); `hosts` the names that the server answers to beside
    `localhost` and addresses, None for any.
    """

    origins: frozenset[str] = frozenset()
    hosts: frozenset[str] | None = None

    def check(self, method: str, headers: Mapping[str, str]) -> None:
        """Raises Forbidden for a request that only a page would send that nobody has allowed."""
        host = headers.get("Host")
        if self.hosts is not None and host is not None and not self._is_ours(host):
            raise Forbidden(NOT_OUR_HOST)
        if method not in READING and not self._may_write(headers, host):
            raise Forbidden(NOT_ALLOWED_ORIGIN)

    def _may_write(self, headers: Mapping[str, str], host: str | None) -> bool:
        origin = headers.get("Origin")
        if origin is None:
            return ANY in self.origins or headers.get("Sec-Fetch-Site") not in _OTHER_SITES
        if ANY in self.origins or origin in self.origins:
            return True
        return host is not None and _address_of(origin) == host.lower()

    def _is_ours(self, host: str) -> bool:
        try:
            name = urlsplit(f"//{host}").hostname or ""
        except ValueError:
            return False
        return name == "localhost" or name in (self.hosts or ()) or _is_address(name)


def _address_of(origin: str) -> str | None:
    """The host and port of an origin as the Host header has them; None of `null` and of nonsense."""
    try:
        parts = urlsplit(origin)
    except ValueError:
        return None
    return parts.netloc.lower() if parts.scheme in ("http", "https") else None


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True
