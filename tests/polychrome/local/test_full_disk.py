"""Disks that run full under `polychrome up`: it says so, refuses what needs room, and all comes back by itself."""

import os
import re
from pathlib import Path

import httpx

from polychrome.local.datadir import read_register
from tests.cluster.waiting import wait_until
from tests.mounts import Mount, fill, mount
from tests.polychrome.terminal import Terminal, create_collection, status, terminals

__all__ = ["mount", "terminals"]

BACK_S_MAX = 20.0
ROWS = {"ids": ["a", "b", "c"], "embeddings": [[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]]}


def _ids(url: str) -> list[str]:
    found: list[str] = httpx.post(f"{url}/get", json={}, timeout=30).raise_for_status().json()["ids"]
    return found


def test_a_full_data_disk_refuses_records_takes_deletes_and_all_comes_back_by_itself(
    tmp_path: Path, mount: Mount, terminals: list[Terminal]
) -> None:
    data_dir = mount(tmp_path / "volume", 48) / "data"
    terminal = Terminal(data_dir, "--reserve-mib", "8")
    terminals.append(terminal)
    terminal.until("Polychrome is ready")
    url = terminal.url + create_collection(terminal.url, "full")
    httpx.post(f"{url}/add", json=ROWS, timeout=30).raise_for_status()
    filler = fill(data_dir.parent)
    assert str(data_dir / "redis") in terminal.until("records are refused")
    more = {"ids": ["d"], "embeddings": [[7.0, 8.0]]}
    wait_until(lambda: httpx.post(f"{url}/upsert", json=more, timeout=30).status_code == 507, "a refusal", BACK_S_MAX)
    refused = httpx.post(f"{url}/upsert", json=more, timeout=30)
    assert "nothing was written, deletes are still taken" in refused.json()["message"]
    assert "Retry-After" in refused.headers
    shown = status(data_dir)
    assert f"the disk of {data_dir / 'redis'} is full" in shown.stdout
    assert shown.returncode == 1
    fill(data_dir.parent)  # somebody takes the reserve as well
    filler.unlink()
    terminal.until("records are taken again")
    wait_until(lambda: httpx.post(f"{url}/upsert", json=more, timeout=30).is_success, "a write", BACK_S_MAX)
    assert sorted(_ids(url)) == ["a", "b", "c", "d"]
    wait_until(lambda: status(data_dir).returncode == 0, "a cluster in order", BACK_S_MAX)
    assert terminal.stop() == 0


def test_deletes_and_compaction_go_on_while_records_are_refused(
    tmp_path: Path, mount: Mount, terminals: list[Terminal]
) -> None:
    data_dir = mount(tmp_path / "volume", 48) / "data"
    terminal = Terminal(data_dir, "--reserve-mib", "8")
    terminals.append(terminal)
    terminal.until("Polychrome is ready")
    url = terminal.url + create_collection(terminal.url, "full")
    fill(data_dir.parent)
    terminal.until("records are refused")
    httpx.post(f"{url}/delete", json={"ids": ["a"]}, timeout=30).raise_for_status()
    indexed = lambda: httpx.get(f"{url}/indexing_status", timeout=30).json()["num_unindexed_ops"] == 0  # noqa: E731
    wait_until(indexed, "the delete compacted", BACK_S_MAX)
    assert terminal.stop() == 0


def test_up_on_a_full_data_disk_says_so_and_waits(tmp_path: Path, mount: Mount, terminals: list[Terminal]) -> None:
    volume = mount(tmp_path / "volume", 32)
    filler = fill(volume)
    terminal = Terminal(volume / "data", "--reserve-mib", "4")
    terminals.append(terminal)
    assert str(volume) in terminal.until("is full")
    assert terminal.popen.poll() is None
    filler.unlink()
    terminal.until("Polychrome is ready")
    assert terminal.stop() == 0


def test_an_earlier_cluster_starts_on_a_full_disk_by_its_reserve(
    tmp_path: Path, mount: Mount, terminals: list[Terminal]
) -> None:
    volume = mount(tmp_path / "volume", 48)
    terminals.append(Terminal(volume / "data", "--reserve-mib", "8"))
    terminals[0].until("Polychrome is ready")
    url = create_collection(terminals[0].url, "full")
    httpx.post(f"{terminals[0].url}{url}/add", json=ROWS, timeout=30).raise_for_status()
    assert terminals[0].stop() == 0
    fill(volume)
    terminals.append(Terminal(volume / "data", "--reserve-mib", "8"))
    terminals[1].until("records are refused")
    terminals[1].until("Polychrome is ready")
    assert sorted(_ids(f"{terminals[1].url}{url}")) == ["a", "b", "c"]
    assert terminals[1].stop() == 0


def test_a_full_disk_of_logs_breaks_nothing_and_is_named_and_counted(
    tmp_path: Path, mount: Mount, terminals: list[Terminal]
) -> None:
    logs = mount(tmp_path / "data" / "logs", 4)
    terminal = Terminal(tmp_path / "data")
    terminals.append(terminal)
    terminal.until("Polychrome is ready")
    fill(logs)
    assert str(logs) in terminal.until("log lines are lost")
    url = terminal.url + create_collection(terminal.url, "silent")
    httpx.post(f"{url}/upsert", json=ROWS, timeout=30).raise_for_status()
    assert sorted(_ids(url)) == ["a", "b", "c"]
    register = read_register(tmp_path / "data")
    assert register is not None
    admin = next(entry.admin for entry in register.processes if entry.role == "frontend")
    lost = re.compile(r"^polychrome_log_lines_lost_total (\S+)$", re.MULTILINE)

    def counted() -> bool:  # the last block of each log file has room for some more
        for _ in range(10):
            httpx.post(f"{url}/upsert", json=ROWS, timeout=30).raise_for_status()
        found = lost.search(httpx.get(f"http://{admin}/metrics", timeout=30).text)
        return found is not None and float(found[1]) > 0

    wait_until(counted, "the lost lines counted", BACK_S_MAX)
    os.truncate(logs / "filler", 0)
    terminal.until("has room again")
    assert terminal.stop() == 0


def test_a_full_disk_of_the_bucket_refuses_records_until_there_is_room(
    tmp_path: Path, mount: Mount, terminals: list[Terminal]
) -> None:
    objects = mount(tmp_path / "data" / "objects", 24)
    terminal = Terminal(tmp_path / "data", "--reserve-mib", "4")
    terminals.append(terminal)
    terminal.until("Polychrome is ready")
    url = terminal.url + create_collection(terminal.url, "full")
    filler = fill(objects)
    assert str(objects) in terminal.until("records are refused")
    wait_until(lambda: httpx.post(f"{url}/upsert", json=ROWS, timeout=30).status_code == 507, "a refusal", BACK_S_MAX)
    httpx.post(f"{url}/delete", json={"ids": ["a"]}, timeout=30).raise_for_status()
    filler.unlink()
    terminal.until("records are taken again")
    wait_until(lambda: httpx.post(f"{url}/upsert", json=ROWS, timeout=30).is_success, "a write", BACK_S_MAX)
    assert terminal.stop() == 0


def test_a_full_disk_of_scratch_space_is_named_and_compaction_waits_for_room(
    tmp_path: Path, mount: Mount, terminals: list[Terminal]
) -> None:
    scratch = mount(tmp_path / "data" / "scratch", 8)
    filler = fill(scratch)
    terminal = Terminal(tmp_path / "data")
    terminals.append(terminal)
    assert str(scratch) in terminal.until("is full")
    terminal.until("Polychrome is ready")
    url = terminal.url + create_collection(terminal.url, "full")
    httpx.post(f"{url}/add", json=ROWS, timeout=30).raise_for_status()
    assert sorted(_ids(url)) == ["a", "b", "c"]
    log = tmp_path / "data" / "logs" / "compactor-1.log"
    wait_until(lambda: f"the disk of {scratch}" in log.read_text(), "the disk in the compactor's log", BACK_S_MAX)
    filler.unlink()
    terminal.until("has room again")
    indexed = lambda: httpx.get(f"{url}/indexing_status", timeout=30).json()["num_unindexed_ops"] == 0  # noqa: E731
    wait_until(indexed, "everything compacted", BACK_S_MAX)
    assert terminal.stop() == 0
