"""Cross-origin requests from browsers: off unless origins are configured."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from frontend.http.responses import HttpResponse

VARY: Final = "origin, access-control-request-method, access-control-request-headers"
ANY: Final = "*"


@dataclass(frozen=True, slots=True)
class Cors:
    """Which origins' pages may read answers. With none at all, OPTIONS is an ordinary method and no header is set."""

    origins: frozenset[str]

    @property
    def enabled(self) -> bool:
        return bool(self.origins)

    def preflight(self) -> HttpResponse:
        """The answer to OPTIONS on any path, known or not."""
        answer = HttpResponse(content_type=None)
        answer.add("Access-Control-Allow-Methods", ANY)
        answer.add("Access-Control-Allow-Headers", ANY)
        return answer

    def mark(self, answer: HttpResponse, origin: str | None) -> None:
        """Adds the headers that every answer carries while origins are configured."""
        answer.add("Vary", VARY)
        if ANY in self.origins:
            answer.add("Access-Control-Allow-Origin", ANY)
        elif origin is not None and origin in self.origins:
            answer.add("Access-Control-Allow-Origin", origin)
