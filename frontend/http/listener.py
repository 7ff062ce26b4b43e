"""Where the HTTP server listens."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Listener:
    """Where a server listens (`port` 0: any free one), and when it gives up on a silent connection."""

    host: str
    port: int
    reuse_port: bool
    keepalive_timeout_s: float
    """Longest silence between two requests of a connection."""

    first_request_timeout_s: float
    """Longest time from the opening of a connection to the headers of its first request."""
