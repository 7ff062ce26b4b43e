"""Cross-origin requests from browsers: off unless origins are configured."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from aiohttp import web

VARY: Final = "origin, access-control-request-method, access-control-request-headers"
ANY: Final = "*"


@dataclass(frozen=True, slots=True)
class Cors:
    """Which origins' pages may read answers. With none at all, OPTIONS is an ordinary method and no header is set."""

    origins: frozenset[str]

    @property
    def enabled(self) -> bool:
        return bool(self.origins)

    def preflight(self) -> web.Response:
        """The answer to OPTIONS on any path, known or not."""
        return web.Response(headers={"Access-Control-Allow-Methods": ANY, "Access-Control-Allow-Headers": ANY})

    def mark(self, response: web.StreamResponse, origin: str | None) -> None:
        """Sets the headers that every answer carries while origins are configured."""
        response.headers["Vary"] = VARY
        if ANY in self.origins:
            response.headers["Access-Control-Allow-Origin"] = ANY
        elif origin is not None and origin in self.origins:
            response.headers["Access-Control-Allow-Origin"] = origin
