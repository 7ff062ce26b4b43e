import os
import subprocess
from pathlib import Path

import pytest

from polychrome.local import directory_lock
from polychrome.local.datadir import (
    DataDirError,
    DataDirInUseError,
    ProcessEntry,
    Register,
    open_data_dir,
    read_register,
    temporary_data_dir,
)


@pytest.fixture(autouse=True)
def _short_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(directory_lock, "LOCK_WAIT_S", 0.2)


def test_two_clusters_cannot_share_a_data_directory(tmp_path: Path) -> None:
    with open_data_dir(tmp_path), pytest.raises(DataDirInUseError), open_data_dir(tmp_path):
        pass
    with open_data_dir(tmp_path):
        pass


def test_what_cannot_hold_data_is_told_in_one_line(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.touch()
    with pytest.raises(DataDirError, match=r"file cannot be used: Not a directory"), open_data_dir(file):
        pass


def test_a_process_that_outlives_the_supervisor_keeps_the_lock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(directory_lock, "LOCK_WAIT_S", 0.1)
    child = _left_by_a_killed_supervisor(tmp_path)
    with pytest.raises(DataDirInUseError, match="processes that a killed cluster has left"), open_data_dir(tmp_path):
        pass
    child.communicate(timeout=10)
    with open_data_dir(tmp_path):
        pass


def test_a_start_waits_for_what_a_killed_supervisor_has_left_and_says_so(tmp_path: Path) -> None:
    child = _left_by_a_killed_supervisor(tmp_path)
    said: list[str] = []

    def say(line: str) -> None:
        said.append(line)
        child.communicate(timeout=10)  # it ends

    with open_data_dir(tmp_path, say):
        assert said == [f"{tmp_path} is in use by processes of a killed cluster; waiting for their end"]


def _left_by_a_killed_supervisor(root: Path) -> "subprocess.Popen[bytes]":
    """A process that has inherited the locks; the lock file names a process that is gone."""
    with open_data_dir(root) as data_dir:
        child = subprocess.Popen(["/bin/cat"], stdin=subprocess.PIPE, pass_fds=data_dir.lock_fds)
        (root / "lock").write_text("4194305 1\n")
    return child


@pytest.mark.parametrize("removed", [["lock"], ["lock", "cluster.json", "name"]])
def test_a_removed_lock_file_lets_no_second_cluster_onto_the_data(tmp_path: Path, removed: list[str]) -> None:
    with open_data_dir(tmp_path):
        for name in removed:
            (tmp_path / name).unlink(missing_ok=True)
        with pytest.raises(DataDirInUseError), open_data_dir(tmp_path):
            pass


def test_another_path_to_the_same_data_is_the_same_data(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path / "real")
    with open_data_dir(tmp_path / "real"):
        (tmp_path / "real" / "lock").unlink()
        with pytest.raises(DataDirInUseError), open_data_dir(tmp_path / "link"):
            pass
        (tmp_path / "other").mkdir()
        (tmp_path / "other" / "redis").symlink_to(tmp_path / "real" / "redis")
        with pytest.raises(DataDirInUseError), open_data_dir(tmp_path / "other"):
            pass


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting takes root")
def test_a_bind_mount_of_the_same_data_is_the_same_data(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "bound").mkdir()
    if subprocess.run(["mount", "--bind", tmp_path / "real", tmp_path / "bound"], check=False).returncode:
        pytest.skip("this machine lets nobody mount")
    try:
        with open_data_dir(tmp_path / "real"):
            (tmp_path / "real" / "lock").unlink()
            with pytest.raises(DataDirInUseError), open_data_dir(tmp_path / "bound"):
                pass
    finally:
        subprocess.run(["umount", tmp_path / "bound"], check=True)


def test_every_data_directory_has_a_name_of_its_own_and_keeps_it(tmp_path: Path) -> None:
    with open_data_dir(tmp_path / "one") as one, open_data_dir(tmp_path / "two") as two:
        assert one.name != two.name
    with open_data_dir(tmp_path / "one") as again:
        assert again.name == one.name


def test_the_register_is_readable_by_its_owner_alone(tmp_path: Path) -> None:
    register = Register(
        "http://127.0.0.1:8000", "redis://:secret@127.0.0.1:1/0", "pc", [ProcessEntry("a", "b", 1, None)]
    )
    with open_data_dir(tmp_path) as data_dir:
        assert read_register(tmp_path) is None
        data_dir.register(register)
        assert read_register(tmp_path) == register
        assert (tmp_path / "cluster.json").stat().st_mode & 0o777 == 0o600
        data_dir.unregister()
        assert read_register(tmp_path) is None


def test_a_temporary_directory_is_gone_afterwards() -> None:
    with temporary_data_dir() as data_dir:
        (data_dir.objects / "x").write_text("x")
    assert not data_dir.root.exists()
