"""TLS on the HTTP listener, with certificates that may be replaced while the server runs.

A certificate and its key are two files, which cannot be replaced in one step. So a new pair is tried in a context of
its own first: while the two do not belong together, or cannot be read, connections get the old pair, and the log says
so once.
"""

from __future__ import annotations

import asyncio
import ssl
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from shared.process.telemetry import get_logger

CHECK_S: Final = 5.0
"""Pause between two looks at the files, in seconds."""

log = get_logger(__name__)


@dataclass(frozen=True, slots=True)
class TlsFiles:
    """Paths of PEM files: the certificate with its chain, its key, and the authority that clients' certificates must be
    of, None for clients without one.
    """

    certificate: Path
    key: Path
    client_ca: Path | None = None

    def version(self) -> tuple[tuple[int, int, int], ...]:
        """Something that changes whenever one of the files does. Raises OSError."""
        paths = (self.certificate, self.key, *((self.client_ca,) if self.client_ca else ()))
        return tuple((found.st_ino, found.st_mtime_ns, found.st_size) for found in (path.stat() for path in paths))


class Tls:
    """The TLS context of a listener. Raises OSError (ssl.SSLError is one) when the files cannot be used."""

    def __init__(self, files: TlsFiles) -> None:
        self._files = files
        self._seen = files.version()
        self.context = _context_of(files)

    def reload(self) -> bool:
        """Takes up files that have changed, for the connections from now on; whether it did."""
        try:
            seen = self._files.version()
            if seen == self._seen:
                return False
            self._seen = seen
            _context_of(self._files)
            _load(self.context, self._files)
        except OSError as error:
            log.error("certificate_not_taken", certificate=str(self._files.certificate), error=str(error))  # noqa: TRY400 (its stack tells nothing)
            return False
        log.info("certificate_taken", certificate=str(self._files.certificate))
        return True

    async def watch(self) -> None:
        """A loop, for ever: takes up files that have changed."""
        while True:
            await asyncio.sleep(CHECK_S)
            self.reload()  # on the loop: a context must not change within a handshake


def _context_of(files: TlsFiles) -> ssl.SSLContext:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    if files.client_ca is not None:
        context.verify_mode = ssl.CERT_REQUIRED
    _load(context, files)
    return context


def _load(context: ssl.SSLContext, files: TlsFiles) -> None:
    """An authority that is no longer in its file is trusted until a restart: a context forgets none."""
    context.load_cert_chain(files.certificate, files.key)
    if files.client_ca is not None:
        context.load_verify_locations(files.client_ca)
