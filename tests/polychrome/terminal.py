"""A running `polychrome up`, as a terminal shows it, and what tests ask of the cluster behind it."""

import queue
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from polychrome.local.datadir import Register, read_register
from polychrome.local.process import free_port

COLLECTIONS = "/api/v2/tenants/default_tenant/databases/default_database/collections"
LINE_S_MAX = 60.0


class Terminal:
    """A running `polychrome up`, its lines as they come."""

    def __init__(self, data_dir: Path, *options: str) -> None:
        self.data_dir = data_dir
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.seen: list[str] = []
        self._lines: queue.Queue[str | None] = queue.Queue()
        command = [sys.executable, "-m", "polychrome", "up", "--embedders", "0", "--port", str(self.port)]
        command += ["--data-dir", str(data_dir), "--reserve-mib", "4"]  # the directories of past runs are kept
        self.popen = subprocess.Popen(
            [*command, *options], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, cwd=data_dir.parent
        )
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def _read(self) -> None:
        assert self.popen.stdout is not None
        for line in self.popen.stdout:
            self._lines.put(line.rstrip())
        self._lines.put(None)

    def until(self, word: str) -> str:
        """The next line that holds the word."""
        while (line := self._lines.get(timeout=LINE_S_MAX)) is not None:
            self.seen.append(line)
            if word in line:
                return line
        raise AssertionError(f"it ended without {word!r}: {self.seen}")

    def end(self) -> int:
        """The exit code, all lines read."""
        while (line := self._lines.get(timeout=LINE_S_MAX)) is not None:
            self.seen.append(line)
        return self.popen.wait(10)

    def stop(self) -> int:
        self.popen.send_signal(signal.SIGINT)
        return self.end()

    def close(self) -> None:
        self.popen.kill()
        self.popen.wait()
        self._reader.join()
        assert self.popen.stdout is not None
        self.popen.stdout.close()

    def register(self) -> Register:
        register = read_register(self.data_dir)
        assert register is not None
        return register

    def pid(self, name: str) -> int:
        return next(entry.pid for entry in self.register().processes if entry.name == name)


@pytest.fixture
def terminals() -> Iterator[list[Terminal]]:
    """The terminals that a test opens: closed at its end."""
    opened: list[Terminal] = []
    yield opened
    for terminal in opened:
        terminal.close()


def status(data_dir: Path) -> "subprocess.CompletedProcess[str]":
    """`polychrome status` on this data directory."""
    return subprocess.run(
        [sys.executable, "-m", "polychrome", "status", "--data-dir", data_dir],
        capture_output=True,
        text=True,
        timeout=30,
    )


def create_collection(url: str, name: str) -> str:
    """The path of a new collection."""
    created = httpx.post(f"{url}{COLLECTIONS}", json={"name": name}, timeout=30).raise_for_status()
    return f"{COLLECTIONS}/{created.json()['id']}"
