"""The two servers under test, each started from nothing on a free port with its data in a fresh directory."""

import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from bench import cost

START_S_MAX = 60.0
STOP_S_MAX = 40.0


@dataclass(frozen=True)
class Server:
    """A running server. `pid` is the process that all its others descend from."""

    name: str
    url: str
    pid: int
    tells_indexed: bool
    """Whether a collection's `log_position` tells how far its index is."""

    @property
    def base(self) -> str:
        return f"{self.url}/api/v2/tenants/default_tenant/databases/default_database/collections"

    def pids(self) -> list[int]:
        return cost.family(self.pid)

    def cpu_s(self) -> float:
        return cost.cpu_s(self.pids())

    def memory_mib(self) -> float:
        return cost.memory_mib(self.pids())

    def create(self, name: str) -> str:
        """The new collection's id."""
        answer = httpx.post(self.base, json={"name": name})
        answer.raise_for_status()
        collection_id: str = answer.json()["id"]
        return collection_id

    def describe(self, name: str) -> dict[str, Any]:
        answer = httpx.get(f"{self.base}/{name}")
        answer.raise_for_status()
        described: dict[str, Any] = answer.json()
        return described

    def delete(self, name: str) -> None:
        httpx.delete(f"{self.base}/{name}", timeout=60.0).raise_for_status()


@contextmanager
def chroma(program: Path, directory: Path) -> Iterator[Server]:
    port = free_port()
    argv = (str(program), "run", "--path", str(directory), "--host", "127.0.0.1", "--port", str(port))
    with _running("Chroma", argv, port, directory.with_suffix(".log"), tells_indexed=False) as server:
        yield server


@contextmanager
def polychrome(directory: Path, options: Sequence[str]) -> Iterator[Server]:
    """`options` go to `polychrome up` as they are."""
    port = free_port()
    argv = (sys.executable, "-m", "polychrome", "up", "--port", str(port), "--data-dir", str(directory), *options)
    with _running("Polychrome", argv, port, directory.with_suffix(".log"), tells_indexed=True) as server:
        yield server


@contextmanager
def _running(name: str, argv: Sequence[str], port: int, log_path: Path, *, tells_indexed: bool) -> Iterator[Server]:
    url = f"http://127.0.0.1:{port}"
    with log_path.open("wb") as log:
        process = subprocess.Popen(argv, stdout=log, stderr=log, stdin=subprocess.DEVNULL)
        try:
            _wait_until_up(process, url, log_path)
            yield Server(name, url, process.pid, tells_indexed)
        except Exception as error:
            if process.poll() is not None:
                tail = log_path.read_text(errors="replace")[-2000:]
                error.add_note(f"{name} ended by itself with {process.returncode}; the end of its log:\n{tail}")
            raise
        finally:
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(STOP_S_MAX)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _wait_until_up(process: "subprocess.Popen[bytes]", url: str, log_path: Path) -> None:
    deadline_s = time.monotonic() + START_S_MAX
    while True:
        try:
            if httpx.get(f"{url}/api/v2/healthcheck").status_code == 200:
                return
        except httpx.TransportError:
            pass
        if process.poll() is not None or time.monotonic() > deadline_s:
            raise RuntimeError(f"{url} did not come up:\n{log_path.read_text(errors='replace')[-2000:]}")
        time.sleep(0.1)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
