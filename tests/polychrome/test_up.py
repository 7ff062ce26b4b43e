"""`polychrome up` as a user has it: a terminal program."""

import os
import queue
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from polychrome.datadir import Register, read_register
from polychrome.process import free_port
from tests.cluster.waiting import wait_until

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
        command += ["--data-dir", str(data_dir)]
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
def terminals(tmp_path: Path) -> Iterator[list[Terminal]]:
    opened: list[Terminal] = []
    yield opened
    for terminal in opened:
        terminal.close()


def status(data_dir: Path) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-m", "polychrome", "status", "--data-dir", data_dir],
        capture_output=True,
        text=True,
        timeout=30,
    )


def test_a_cluster_comes_up_restarts_what_dies_stops_in_order_and_keeps_its_data(
    tmp_path: Path, terminals: list[Terminal]
) -> None:
    data_dir = tmp_path / "data"
    terminal = Terminal(data_dir, "--frontends", "2")
    terminals.append(terminal)
    assert terminal.until("Polychrome is ready").endswith(terminal.url)
    assert [line.split()[1] for line in terminal.seen[:-1]] == ["ready"] * 6
    created = httpx.post(f"{terminal.url}{COLLECTIONS}", json={"name": "kept"}, timeout=10).json()
    rows = {"ids": ["a", "b"], "embeddings": [[1.0, 2.0], [3.0, 4.0]]}
    httpx.post(f"{terminal.url}{COLLECTIONS}/{created['id']}/add", json=rows, timeout=10).raise_for_status()
    shown = status(data_dir)
    assert shown.returncode == 0, shown.stdout
    assert "frontend-2" in shown.stdout
    worker = [line.split() for line in shown.stdout.splitlines() if line.startswith("queryworker")]
    assert [(line[1], line[4] == "-") for line in worker] == [("queryworker-1", False)]

    for name in ("queryworker-1", "redis"):
        os.kill(terminal.pid(name), signal.SIGKILL)
        assert "SIGKILL" in terminal.until(f"{name:<16} died")
        terminal.until(f"{name:<16} ready")
    assert status(data_dir).returncode in (0, 1)  # it answers whatever it finds
    wait_until(lambda: httpx.get(f"{terminal.url}{COLLECTIONS}/{created['id']}/count").json() == 2, "readable", 20)

    assert terminal.stop() == 0
    stopped = [line.split()[0] for line in terminal.seen if line.endswith("stopped")]
    assert stopped == ["frontend-1", "frontend-2", "queryworker-1", "compactor-1", "logservice-1", "redis"]
    assert read_register(data_dir) is None

    again = Terminal(data_dir)
    terminals.append(again)
    again.until("Polychrome is ready")
    assert httpx.get(f"{again.url}{COLLECTIONS}/{created['id']}/count", timeout=10).json() == 2
    assert again.stop() == 0


def test_a_second_cluster_on_the_same_data_is_refused(tmp_path: Path, terminals: list[Terminal]) -> None:
    terminals.append(Terminal(tmp_path / "data"))
    terminals[0].until("redis")
    terminals.append(Terminal(tmp_path / "data"))
    assert terminals[1].end() == 1
    assert "in use by another cluster" in terminals[1].seen[-1]
    assert "try again in some seconds" in terminals[1].seen[-1]
    assert terminals[0].stop() == 0


def test_nothing_outlives_a_killed_supervisor(tmp_path: Path, terminals: list[Terminal]) -> None:
    data_dir = tmp_path / "data"
    terminals.append(Terminal(data_dir))
    terminals[0].until("Polychrome is ready")
    terminals[0].popen.kill()
    terminals.append(Terminal(data_dir))
    try:
        terminals[1].until("Polychrome is ready")
    except AssertionError:  # the old processes held the lock still, while they drained
        wait_until(lambda: _starts(data_dir, terminals), "the lock free", 40)
    assert terminals[-1].stop() == 0


def _starts(data_dir: Path, terminals: list[Terminal]) -> bool:
    terminals.append(Terminal(data_dir))
    terminals[-1].until("redis")
    return True


def test_a_port_that_is_taken_is_told_at_once(tmp_path: Path, terminals: list[Terminal]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        terminals.append(Terminal(tmp_path / "data", "--port", str(taken.getsockname()[1])))
        assert terminals[0].end() == 1
    assert "already in use; --port takes another" in terminals[0].seen[-1]


def test_a_redis_that_does_not_answer_is_told_at_once(
    tmp_path: Path, terminals: list[Terminal], monkeypatch: pytest.MonkeyPatch
) -> None:
    port = free_port()
    monkeypatch.setenv("REDIS_URL", f"redis://:secret@127.0.0.1:{port}/0")
    terminals.append(Terminal(tmp_path / "data"))
    said = terminals[0].until("Redis does not answer")
    assert f"127.0.0.1:{port}" in said
    assert "secret" not in said
    assert terminals[0].stop() == 0


def test_any_free_port_is_one_that_is_told(tmp_path: Path, terminals: list[Terminal]) -> None:
    terminals.append(Terminal(tmp_path / "data", "--port", "0", "--in-memory"))
    url = terminals[0].until("Polychrome is ready").split()[-1]
    assert httpx.get(f"{url}/api/v2/heartbeat", timeout=10).status_code == 200
    kept_nowhere = Path(terminals[0].until("Nothing will be kept").split()[-1])
    assert status(kept_nowhere).returncode == 0
    assert terminals[0].stop() == 0
    assert not kept_nowhere.exists()


def test_a_wrong_setting_is_told_and_stops_everything(
    tmp_path: Path, terminals: list[Terminal], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("POLYCHROME_FRONTEND_BODY_BYTES_MAX", "plenty")
    terminals.append(Terminal(tmp_path / "data"))
    assert terminals[0].end() == 1
    assert any("POLYCHROME_FRONTEND_BODY_BYTES_MAX 'plenty'" in line for line in terminals[0].seen)
