"""`polychrome up` as a user has it: a terminal program."""

import os
import resource
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import httpx
import pytest

from polychrome.local.datadir import read_register
from polychrome.local.process import free_port
from tests.cluster.waiting import wait_until
from tests.polychrome.terminal import COLLECTIONS, Terminal, status, terminals

__all__ = ["terminals"]


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
    assert f"in use by another cluster (process {terminals[0].popen.pid})" in terminals[1].seen[-1]
    assert terminals[0].stop() == 0


def test_nothing_outlives_a_killed_supervisor_and_a_start_at_once_works(
    tmp_path: Path, terminals: list[Terminal]
) -> None:
    data_dir = tmp_path / "data"
    terminals.append(Terminal(data_dir))
    terminals[0].until("Polychrome is ready")
    pids = [entry.pid for entry in terminals[0].register().processes]
    terminals[0].popen.kill()
    killed_s = time.monotonic()
    terminals.append(Terminal(data_dir, "--port", str(terminals[0].port)))
    wait_until(lambda: not any(map(_running, pids)), "the end of all processes", 1)
    terminals[1].until("Polychrome is ready")
    assert time.monotonic() - killed_s < 15  # 2 s on an idle machine
    assert terminals[1].stop() == 0


def _running(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state not in "ZX"


@pytest.mark.parametrize(("files", "code"), [(100, 1), (1000, 0)])
def test_too_few_files_are_named_at_the_start(files: int, code: int) -> None:
    command = [sys.executable, "-m", "polychrome", "up", "--port", "0", "--in-memory"]
    limit = lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (files, files))  # noqa: E731
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, preexec_fn=limit) as up:  # noqa: PLW1509
        assert up.stdout is not None
        assert f"only {files} files may be open at once" in up.stdout.readline().decode()
        if code == 0:
            assert b"redis" in up.stdout.readline()
            up.send_signal(signal.SIGTERM)
        said = up.stdout.read().decode()
    assert up.returncode == code, said


def test_a_port_that_is_taken_is_told_at_once(tmp_path: Path, terminals: list[Terminal]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        terminals.append(Terminal(tmp_path / "data", "--port", str(taken.getsockname()[1])))
        assert terminals[0].end() == 1
    assert "already in use; --port takes another" in terminals[0].seen[-1]


def test_a_prefix_that_cannot_stand_in_the_users_of_redis_is_told(
    tmp_path: Path, terminals: list[Terminal], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("POLYCHROME_REDIS_PREFIX", "of mine")
    terminals.append(Terminal(tmp_path / "data"))
    assert terminals[0].end() == 1
    assert "the prefix of keys in Redis has a space" in terminals[0].seen[-1]


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
