"""The access log: a line in the process's log for every request, written in batches.

A line that goes through the logger by itself costs more than the work on many a request: processors, a system call. So
requests are noted, and their lines are written together a moment later. A process that is killed within that moment
leaves no lines about its last requests; faults have lines of their own, which are written at once.
"""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from typing import Any, Final

from frontend.http.request import Request
from frontend.http.shown_path import shown_path
from shared.process import telemetry

MODULE: Final = "frontend.access"
GATHER_S: Final = 0.1
"""Longest time between noting a request and writing its line, in seconds."""

LINES_MAX: Final = 256
"""Number of waiting lines that are written at once."""


class AccessLog:
    """Notes requests and writes their lines. `wanted` says which requests: "all", "failed" (status 500 and above) or
    "off".
    """

    def __init__(self, wanted: str) -> None:
        self._least_status = {"all": 0, "failed": 500, "off": 1000}[wanted]
        self._noted: list[dict[str, Any]] = []
        self._timer: asyncio.TimerHandle | None = None

    def note(self, request: Request, method: str, route: str, status: int, seconds: float) -> None:
        """Notes a request that was answered just now, `seconds` after its headers. `route`: the route's pattern."""
        if status < self._least_status:
            return
        self._noted.append(
            {
                "method": method,
                "route": route,
                "path": shown_path(request.path),
                "status": status,
                "bytes_in": request.body_bytes,
                "ms": round(seconds * 1000, 3),
                "event": "request",
                "time": datetime.now(UTC),
                "request_id": telemetry.request_id.get(),
            }
        )
        if len(self._noted) >= LINES_MAX:
            self.flush()
        elif self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(GATHER_S, self.flush)

    def flush(self) -> None:
        """Writes the lines of all requests that are noted."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        noted, self._noted = self._noted, []
        telemetry.write_info(MODULE, noted)
