"""TLS on the API: a certificate that is replaced while the server runs, and clients that need one."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
import subprocess
from pathlib import Path

import httpx
import pytest

from frontend.http.tls import Tls, TlsFiles
from shared.process.config import ConfigError
from tests.frontend.fakes import new_config
from tests.frontend.server import running


def certificate(folder: Path, name: str) -> tuple[Path, Path]:
    """A new one that signs itself; its files replace those that were there, one after the other."""
    paths = folder / "cert.pem", folder / "key.pem"
    drafts = [path.with_suffix(".new") for path in paths]
    command = [
        "openssl",
        "req",
        "-x509",
        "-newkey",
        "ec",
        "-pkeyopt",
        "ec_paramgen_curve:P-256",
        "-nodes",
        "-days",
        "1",
    ]
    command += ["-subj", f"/CN={name}", "-addext", "subjectAltName=IP:127.0.0.1", "-out", str(drafts[0])]
    subprocess.run([*command, "-keyout", str(drafts[1])], check=True, capture_output=True)
    for draft, path in zip(drafts, paths, strict=True):
        draft.replace(path)
    return paths


def trusting(path: Path, own: tuple[Path, Path] | None = None) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=path)
    if own is not None:
        context.load_cert_chain(*own)
    return context


async def ask(address: str, context: ssl.SSLContext) -> int:
    async with httpx.AsyncClient(verify=context, timeout=10) as client:
        return (await client.get(f"https://{address}/api/v2/heartbeat")).status_code


async def test_a_new_certificate_is_taken_up_without_a_restart(tmp_path: Path) -> None:
    cert, key = certificate(tmp_path, "first")
    first = trusting(cert)
    async with running(tls_certificate_file=cert, tls_key_file=key) as server:
        address, tls = server.server.address, server.server.tls
        assert tls is not None
        assert await ask(address, first) == 200
        kept = key.read_bytes()
        certificate(tmp_path, "second")
        new_key = key.read_bytes()
        key.write_bytes(kept)
        assert not tls.reload(), "half of a pair is not taken"
        assert await ask(address, first) == 200
        key.write_bytes(new_key)
        assert tls.reload()
        assert not tls.reload()
        assert await ask(address, trusting(cert)) == 200
        with pytest.raises(httpx.ConnectError):
            await ask(address, first)


async def test_clients_need_a_certificate_where_an_authority_is_given(tmp_path: Path) -> None:
    for name in ("server", "client"):
        (tmp_path / name).mkdir()
    cert, key = certificate(tmp_path / "server", "server")
    own = certificate(tmp_path / "client", "client")
    async with running(tls_certificate_file=cert, tls_key_file=key, tls_client_ca_file=own[0]) as server:
        assert await ask(server.server.address, trusting(cert, own)) == 200
        with pytest.raises(httpx.TransportError):
            await ask(server.server.address, trusting(cert))


async def test_plain_http_gets_nothing_from_a_listener_with_tls(tmp_path: Path) -> None:
    cert, key = certificate(tmp_path, "server")
    async with running(tls_certificate_file=cert, tls_key_file=key) as server:
        host, _, port = server.server.address.rpartition(":")
        reader, writer = await asyncio.open_connection(host, int(port))
        writer.write(b"GET /api/v2/heartbeat HTTP/1.1\r\nhost: localhost\r\n\r\n")
        async with asyncio.timeout(10):
            with contextlib.suppress(ConnectionResetError):
                assert not (await reader.read()).startswith(b"HTTP")
        writer.close()


def test_files_that_do_not_belong_together_are_refused_at_the_start(tmp_path: Path) -> None:
    cert, _ = certificate(tmp_path, "server")
    (tmp_path / "other").mkdir()
    _, key = certificate(tmp_path / "other", "other")
    with pytest.raises(OSError, match="KEY_VALUES_MISMATCH"):
        Tls(TlsFiles(cert, key))
    with pytest.raises(ConfigError, match="TLS needs both"):
        new_config(tls_certificate_file=cert)
