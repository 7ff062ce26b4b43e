"""The HTTP server's listening sockets, and its timeouts for silent connections."""

from __future__ import annotations

import os
import socket
from dataclasses import dataclass

from frontend.http.tls import TlsFiles


@dataclass(frozen=True, slots=True)
class Listener:
    """Address and port of a server (port 0: any free port), and its timeouts for silent connections, in seconds."""

    host: str
    port: int
    reuse_port: bool
    keepalive_timeout_s: float
    """Longest silence between two requests of a connection."""

    first_request_timeout_s: float
    """Longest time from the opening of a connection to the headers of its first request."""

    fds: tuple[int, ...] = ()
    """File descriptors of sockets that listen already, and that are used instead of the address and the port."""

    tls: TlsFiles | None = None
    """The certificate to answer by; None for plain HTTP."""

    def addresses(self) -> list[str]:
        """The addresses that are listened on: of inherited sockets their own, else the configured one."""
        if not self.fds:
            return [self.host]
        found: list[str] = []
        for fd in self.fds:
            with socket.socket(fileno=os.dup(fd)) as listening:
                found.append(str(listening.getsockname()[0]))
        return found
