"""CPU time of calls between processes: without a proof, with tags under a cluster secret, and over TLS for comparison.

    python -m bench.rpc_security

Client and server run in this one process, so the figures are of both sides together, and nothing but calls is in them.
TLS is Python's `ssl` under uvloop, with a certificate made for the occasion (`openssl` must be there).
"""

from __future__ import annotations

import asyncio
import ssl
import subprocess
import tempfile
import time
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Final

import uvloop

from shared.process import telemetry
from shared.process.cluster_secret import ClusterSecret, new_secret
from shared.rpc.chunks import ChunkStream
from shared.rpc.client import RpcClient
from shared.rpc.server import RpcServer
from shared.rpc.server_call import Call

CALLS: Final = 20_000
TOGETHER: Final = 32
LONG_BYTES: Final = 100_000_000
ROUNDS: Final = 5
_LONG: Final = bytes(LONG_BYTES)


def _small(calls: Sequence[Call]) -> None:
    for call in calls:
        call.answer(bytes(400))


def _long(calls: Sequence[Call]) -> None:
    for call in calls:
        call.answer(_LONG)


async def _small_calls(client: RpcClient, address: str) -> None:
    async def caller() -> None:
        for _ in range(CALLS // TOGETHER):
            await client.call(address, "small", bytes(200), timeout_s=60)

    await asyncio.gather(*(caller() for _ in range(TOGETHER)))


async def _one_after_the_other(client: RpcClient, address: str) -> None:
    for _ in range(CALLS // 10):
        await client.call(address, "small", bytes(200), timeout_s=60)


async def _long_answer(client: RpcClient, address: str) -> None:
    answer = await client.begin_chunks(address, "long", b"", timeout_s=60)
    assert isinstance(answer, ChunkStream)
    assert sum([len(chunk) async for chunk in answer]) == LONG_BYTES


async def _cpu_s(work: Callable[[RpcClient, str], Awaitable[None]], secret: ClusterSecret | None) -> float:
    server, client = RpcServer({"small": _small, "long": _long}, secret=secret), RpcClient(secret=secret)
    address = await server.start("127.0.0.1", 0)
    took: list[float] = []
    for _ in range(ROUNDS):
        begun = time.process_time()
        await work(client, address)
        took.append(time.process_time() - begun)
    await client.close()
    await server.close()
    return min(took)


def _certificate(folder: Path) -> tuple[ssl.SSLContext, ssl.SSLContext]:
    key, certificate = folder / "key.pem", folder / "cert.pem"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "1",
         "-keyout", key, "-out", certificate, "-subj", "/CN=127.0.0.1", "-addext", "subjectAltName=IP:127.0.0.1"],
        check=True, capture_output=True,
    )  # fmt: skip
    called = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    called.load_cert_chain(certificate, key)
    return called, ssl.create_default_context(cafile=certificate)


class _TlsLoop(uvloop.Loop):
    """An event loop whose connections are all under TLS."""

    contexts: tuple[ssl.SSLContext, ssl.SSLContext] | None = None

    async def create_server(self, *args: Any, **kwargs: Any) -> Any:
        return await super().create_server(*args, ssl=self.contexts[0] if self.contexts else None, **kwargs)

    async def create_connection(self, *args: Any, **kwargs: Any) -> Any:
        return await super().create_connection(*args, ssl=self.contexts[1] if self.contexts else None, **kwargs)


async def _measure(folder: Path) -> None:
    loop = asyncio.get_running_loop()
    assert isinstance(loop, _TlsLoop)
    (folder / "secret").write_text(new_secret())
    works: dict[str, tuple[Callable[[RpcClient, str], Awaitable[None]], float, str]] = {
        f"{TOGETHER} small calls at once": (_small_calls, CALLS / 1e6, "us a call"),
        "small calls, one by one": (_one_after_the_other, CALLS / 10 / 1e6, "us a call"),
        "an answer of 100 MB": (_long_answer, LONG_BYTES / 1e6 / 1e3, "ms a MB"),
    }
    contexts = await asyncio.to_thread(_certificate, folder)
    print("| | plain | tags | TLS | |\n| --- | --- | --- | --- | --- |")
    for name, (work, unit, of) in works.items():
        row: list[float] = []
        for secret, tls in ((None, None), (ClusterSecret(folder / "secret"), None), (None, contexts)):
            loop.contexts = tls
            row.append(await _cpu_s(work, secret) / unit)
        print(f"| {name} | " + " | ".join(f"{each:.3g}" for each in row) + f" | {of} |", flush=True)


def main() -> None:
    """Prints a table."""
    telemetry.configure("bench", "bench", "warning")
    with tempfile.TemporaryDirectory() as folder, asyncio.Runner(loop_factory=_TlsLoop) as runner:
        runner.run(partial(_measure, Path(folder))())


if __name__ == "__main__":
    main()
