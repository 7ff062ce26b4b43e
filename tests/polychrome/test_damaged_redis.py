"""A damaged append-only file under `polychrome up`: it is named, and its repair costs no more than is named."""

import json
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

from polychrome.append_only.repair import MANIFEST
from polychrome.local.datadir import DataDirInUseError
from polychrome.repair_redis import repair_redis
from tests.cluster.waiting import wait_until
from tests.polychrome.terminal import Terminal, create_collection, status, terminals

__all__ = ["terminals"]

RECORDS = 12


@pytest.fixture
def written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, terminals: list[Terminal]) -> tuple[Path, str]:
    """The data directory of a stopped cluster with RECORDS records "0", "1" and so on, one append each, that are in the
    log alone, and the path of their collection.
    """
    for name in ("POLYCHROME_LOGSERVICE_COMPACT_QUIET_S", "POLYCHROME_LOGSERVICE_COMPACT_AGE_S"):
        monkeypatch.setenv(name, "3600")
    terminal = Terminal(tmp_path / "data")
    terminals.append(terminal)
    terminal.until("Polychrome is ready")
    path = create_collection(terminal.url, "damaged")
    with httpx.Client(base_url=terminal.url, timeout=30) as client:
        for number in range(RECORDS):
            client.post(f"{path}/add", json={"ids": [str(number)], "embeddings": [[1.0, number]]}).raise_for_status()
    assert terminal.stop() == 0
    return tmp_path / "data", path


def _log_file(data_dir: Path) -> Path:
    [path] = (data_dir / "redis" / "appendonlydir").glob("*.incr.aof")
    return path


def _repair(data_dir: Path, *, write: bool = False, aside: bool = False) -> tuple[int, str]:
    """The exit code of `polychrome repair-redis`, and what it says."""
    result = repair_redis(data_dir, "pc", lambda _: None, write=write, aside=aside)
    return int(result.damaged), "\n".join(result.lines())


def _ids(terminal: Terminal, path: str) -> list[int]:
    found = httpx.post(f"{terminal.url}{path}/get", json={}, timeout=30).raise_for_status().json()
    return sorted(map(int, found["ids"]))


def test_a_damaged_file_is_named_and_its_repair_keeps_everything_that_is_not(
    written: tuple[Path, str], terminals: list[Terminal]
) -> None:
    data_dir, path = written
    file = _log_file(data_dir)
    before = file.read_bytes()
    at = before.rindex(b"XADD") - 5  # the last append is the last to be lost
    assert before[at : at + 2] == b"\n$", before[at - 20 : at + 20]
    file.write_bytes(before[: at + 1] + b"%" + before[at + 2 :])

    terminals.append(Terminal(data_dir))
    assert str(file) in terminals[-1].until("are lost")
    said = terminals[-1].until("Redis is not started")
    assert f"polychrome repair-redis --data-dir {data_dir} --write" in said
    shown = status(data_dir)
    assert shown.returncode == 1
    assert str(file) in shown.stdout
    with pytest.raises(DataDirInUseError):
        _repair(data_dir, write=True)
    assert terminals[-1].stop() == 0

    code, said = _repair(data_dir)
    assert code == 1
    assert f"collection {path.rpartition('/')[2]}, shard 0: positions {RECORDS} to {RECORDS}" in said
    command = [sys.executable, "-m", "polychrome", "repair-redis", "--data-dir", str(data_dir), "--json"]
    told = subprocess.run(command, check=False, timeout=60, capture_output=True)
    assert told.returncode == 1
    answer = json.loads(told.stdout)
    assert answer["damaged"]
    assert [(each["path"], each["entries"][0]["first"]) for each in answer["found"]] == [(str(file), RECORDS)]
    done = subprocess.run([*command, "--write"], check=True, timeout=60, capture_output=True)
    assert "appendonlydir.damaged-" in json.loads(done.stdout)["kept"]
    assert _repair(data_dir)[0] == 0
    [kept] = (data_dir / "redis").glob("appendonlydir.damaged-*")
    assert (kept / file.name).read_bytes() != before

    terminals.append(Terminal(data_dir))
    terminals[-1].until("Polychrome is ready")
    wait_until(lambda: _ids(terminals[-1], path) == list(range(RECORDS - 1)), "all but the named record", 20)
    assert terminals[-1].stop() == 0


def test_a_torn_end_is_named_and_cut_off_and_the_cluster_starts(
    written: tuple[Path, str], terminals: list[Terminal]
) -> None:
    data_dir, path = written
    file = _log_file(data_dir)
    whole = file.read_bytes()
    file.write_bytes(whole + whole[whole.rindex(b"*1\r\n$5\r\nMULTI") :][:-20])
    terminals.append(Terminal(data_dir))
    assert str(file) in terminals[-1].until("none of it was acknowledged; it is cut off")
    terminals[-1].until("Polychrome is ready")
    assert _ids(terminals[-1], path) == list(range(RECORDS))
    assert terminals[-1].stop() == 0


def test_what_cannot_be_repaired_can_be_set_aside(written: tuple[Path, str], terminals: list[Terminal]) -> None:
    data_dir, path = written
    (data_dir / "redis" / "appendonlydir" / MANIFEST).write_bytes(bytes(50))
    terminals.append(Terminal(data_dir))
    assert f"polychrome repair-redis --data-dir {data_dir} --set-aside" in terminals[-1].until("is not one that")
    assert terminals[-1].stop() == 0
    assert "--set-aside" in _repair(data_dir, write=True)[1]
    assert _repair(data_dir, aside=True)[0] == 0
    terminals.append(Terminal(data_dir))
    terminals[-1].until("Polychrome is ready")
    found = httpx.get(f"{terminals[-1].url}{path.rpartition('/')[0]}", timeout=30).raise_for_status().json()
    assert [each["name"] for each in found] == ["damaged"]
    assert terminals[-1].stop() == 0
