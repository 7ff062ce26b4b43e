"""Cross-origin requests from browsers: off unless origins are configured."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from frontend.http.responses import HttpResponse

VARY: Final = "origin, access-control-request-method, access-control-request-headers"
ANY: Final = "*"


@dataclass(frozen=True, slots=True)
class Cors:
    """The origins whose pages may read responses. Without any, OPTIONS is an ordinary method and no header is set."""

    origins: frozenset[str]

    @property
    def enabled(self) -> bool:
        """Whether any origin is configured."""
        return bool(self.origins)

    def preflight(self) -> HttpResponse:
        """The response to OPTIONS on any path, known or not."""
        response = HttpResponse(content_type=None)
        response.add("Access-Control-Allow-Methods", ANY)
        response.add("Access-Control-Allow-Headers", ANY)
        return response

    def mark(self, response: HttpResponse, origin: str | None) -> None:
        """Adds the headers that every response has while origins are configured. `origin`: the request's."""
        response.add("Vary", VARY)
        if ANY in self.origins:
            response.add("Access-Control-Allow-Origin", ANY)
        elif origin is not None and origin in self.origins:
            response.add("Access-Control-Allow-Origin", origin)
