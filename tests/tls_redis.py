"""A Redis server that takes connections over TLS."""

from __future__ import annotations

from pathlib import Path

from tests.certificates import Authority, Pair
from tests.missing import missing
from tests.redis_server import BINARIES, RedisServer, free_port


class TlsServer(RedisServer):
    """Debian's Redis, since the Valkey of the tests has no TLS. Its clients need a certificate of the authority. It
    answers in the clear on another port, for tests' own questions.
    """

    def __init__(self, directory: Path, authority: Authority) -> None:
        self.tls_port = free_port()
        self.pair = authority.sign("server")
        binary = BINARIES["redis"]
        if binary is None:
            missing("redis-server")
        options = {
            "tls-port": str(self.tls_port), "tls-cert-file": str(self.pair.certificate),
            "tls-key-file": str(self.pair.key), "tls-ca-cert-file": str(authority.certificate),
            "tls-auth-clients": "yes",
        }  # fmt: skip
        super().__init__(binary, directory, options)

    def tls_url(self, trusted: Path, own: Pair | None, host: str = "127.0.0.1") -> str:
        """For a client that trusts this authority and shows this certificate."""
        words = [f"ssl_ca_certs={trusted}"]
        if own is not None:
            words += [f"ssl_certfile={own.certificate}", f"ssl_keyfile={own.key}"]
        return f"rediss://{host}:{self.tls_port}/0?{'&'.join(words)}"
