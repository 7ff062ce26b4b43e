"""The two servers under test, each started from nothing on a free port with its data in a fresh directory."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import httpx

from bench import cost

START_S_MAX: Final = 60.0
STOP_S_MAX: Final = 40.0
COLLECTIONS: Final = "/api/v2/tenants/default_tenant/databases/default_database/collections"
TRANSFER_S_MAX: Final = 600.0


@dataclass
class Server:
    """A server that can be started, stopped, and killed with all its processes; always the same data and port."""

    name: str
    argv: Sequence[str]
    port: int
    log_path: Path
    tells_indexed: bool
    """Whether `indexing_status` tells how far its index is."""
    _process: "subprocess.Popen[bytes] | None" = field(default=None, init=False)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def pid(self) -> int:
        """The process that all the others descend from."""
        assert self._process is not None
        return self._process.pid

    def pids(self) -> list[int]:
        return cost.family(self.pid)

    def cpu_s(self) -> float:
        return cost.cpu_s(self.pids())

    def memory_mib(self) -> dict[str, float]:
        return cost.memory_mib(self.pids())

    def launch(self) -> None:
        """Start it; it is not up yet on return."""
        with self.log_path.open("ab") as log:
            self._process = subprocess.Popen(self.argv, stdout=log, stderr=log, stdin=subprocess.DEVNULL)

    def start(self) -> None:
        self.launch()
        deadline_s = time.monotonic() + START_S_MAX
        while not self.answers():
            if self.ended() or time.monotonic() > deadline_s:
                raise RuntimeError(f"{self.name} did not come up:\n{self.log_end()}")
            time.sleep(0.1)

    def answers(self) -> bool:
        try:
            return httpx.get(f"{self.url}/api/v2/healthcheck").status_code == 200
        except httpx.TransportError:
            return False

    def ended(self) -> bool:
        return self._process is None or self._process.poll() is not None

    def log_end(self) -> str:
        return self.log_path.read_text(errors="replace")[-2000:]

    def stop(self) -> None:
        if self._process is None:
            return
        self._process.send_signal(signal.SIGTERM)
        try:
            self._process.wait(STOP_S_MAX)
        except subprocess.TimeoutExpired:
            self.kill()

    def kill(self) -> None:
        """SIGKILL to all of its processes; returns when they are gone."""
        assert self._process is not None
        pids = self.pids()
        for pid in pids:
            os.kill(pid, signal.SIGKILL)
        self._process.wait()
        while any(cost.alive(pid) for pid in pids):
            time.sleep(0.001)

    def create(self, name: str) -> "Collection":
        answer = httpx.post(f"{self.url}{COLLECTIONS}", json={"name": name}, timeout=60.0)
        answer.raise_for_status()
        return Collection(self, name, answer.json()["id"])


@dataclass(frozen=True)
class Collection:
    """A collection on one of the servers."""

    server: Server
    name: str
    id: str

    def path(self, action: str) -> str:
        return f"{COLLECTIONS}/{self.id}/{action}"

    def post(self, action: str, body: dict[str, Any]) -> Any:
        answer = httpx.post(f"{self.server.url}{self.path(action)}", json=body, timeout=TRANSFER_S_MAX)
        answer.raise_for_status()
        return answer.json()

    def get(self, action: str) -> Any:
        answer = httpx.get(f"{self.server.url}{self.path(action)}", timeout=TRANSFER_S_MAX)
        answer.raise_for_status()
        return answer.json()

    def configure(self, **hnsw: int) -> None:
        url = f"{self.server.url}{COLLECTIONS}/{self.id}"
        httpx.put(url, json={"new_configuration": {"hnsw": hnsw}}, timeout=60.0).raise_for_status()

    def delete(self) -> None:
        httpx.delete(f"{self.server.url}{COLLECTIONS}/{self.name}", timeout=60.0).raise_for_status()


@contextmanager
def chroma(program: Path, directory: Path) -> Iterator[Server]:
    port = free_port()
    argv = (str(program), "run", "--path", str(directory), "--host", "127.0.0.1", "--port", str(port))
    yield from _running(Server("Chroma", argv, port, directory.with_suffix(".log"), tells_indexed=False))


@contextmanager
def polychrome(directory: Path, options: Sequence[str]) -> Iterator[Server]:
    """`options` go to `polychrome up` as they are."""
    port = free_port()
    command = (sys.executable, "-m", "polychrome", "up", "--embedders", "0")  # the other server has nothing like them
    argv = (*command, "--port", str(port), "--data-dir", str(directory), *options)
    yield from _running(Server("Polychrome", argv, port, directory.with_suffix(".log"), tells_indexed=True))


def _running(server: Server) -> Iterator[Server]:
    try:
        server.start()
        yield server
    except Exception as error:
        if server.ended():
            error.add_note(f"{server.name} ended by itself; the end of its log:\n{server.log_end()}")
        raise
    finally:
        server.stop()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
