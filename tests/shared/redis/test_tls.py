"""The connection that small scripts share, over TLS: a real server behind a TLS end of our own."""

import asyncio
import ssl
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from deploy.services import find
from shared.redis.client import open_redis
from tests.missing import missing
from tests.redis_server import RedisServer

OPENSSL = find("openssl")


@pytest.fixture(scope="session")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Certificate and key of 127.0.0.1 in one file."""
    if OPENSSL is None:
        missing("openssl")
    folder = tmp_path_factory.mktemp("tls")
    key, made = folder / "key.pem", folder / "certificate.pem"
    subject = ("-subj", "/CN=127.0.0.1", "-addext", "subjectAltName=IP:127.0.0.1")
    ask = (OPENSSL, "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", *subject)
    subprocess.run((*ask, "-keyout", str(key), "-out", str(made)), check=True, capture_output=True)
    both = folder / "both.pem"
    both.write_text(key.read_text() + made.read_text())
    return both


@asynccontextmanager
async def tls_end(server: RedisServer, certificate: Path) -> AsyncIterator[int]:
    """Its port. What comes in goes on to the server in the clear."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)

    async def copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while data := await reader.read(65536):
                writer.write(data)
                await writer.drain()
        except ConnectionError:
            pass
        finally:
            writer.close()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        inner_reader, inner_writer = await asyncio.open_connection("127.0.0.1", server.port)
        await asyncio.gather(copy(reader, inner_writer), copy(inner_reader, writer))

    listener = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=context)
    try:
        yield listener.sockets[0].getsockname()[1]
    finally:
        listener.close()


async def test_scripts_go_over_one_encrypted_connection(valkey_server: RedisServer, certificate: Path) -> None:
    async with (
        tls_end(valkey_server, certificate) as port,
        open_redis(f"rediss://127.0.0.1:{port}/0?ssl_ca_certs={certificate}") as redis,
    ):
        sha = await redis.script_load("return ARGV[1]")
        answers = await asyncio.gather(*(redis.evalsha(sha, 0, "x" * 50 * i) for i in range(40)))
        assert answers == [b"x" * 50 * i for i in range(40)]
