"""One line in the log per request, as every other line, but written in bundles.

A line costs more than many a request's own work when it goes through the logger one by one: processors, a system call.
So requests are noted, and turned into lines together a moment later. Who is killed within that moment leaves no line
about the last requests; faults have lines of their own, which are written at once.
"""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from typing import Any, Final

from frontend.http.request import Request
from shared.process import telemetry

MODULE: Final = "frontend.access"
GATHER_S: Final = 0.1
LINES_MAX: Final = 256
"""So many lines are written without waiting any longer."""


class AccessLog:
    """`wanted` is "all", "failed" (status 500 and above) or "off"."""

    def __init__(self, wanted: str) -> None:
        self._least_status = {"all": 0, "failed": 500, "off": 1000}[wanted]
        self._noted: list[dict[str, Any]] = []
        self._timer: asyncio.TimerHandle | None = None

    def note(self, request: Request, method: str, route: str, status: int, seconds: float) -> None:
        """A request that was answered just now, after so many seconds."""
        if status < self._least_status:
            return
        self._noted.append(
            {
                "method": method,
                "route": route,
                "path": request.path,
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
        """Writes what was noted."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        noted, self._noted = self._noted, []
        telemetry.write_info(MODULE, noted)
