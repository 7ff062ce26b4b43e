import subprocess
from pathlib import Path

import pytest

from polychrome.datadir import (
    DataDirError,
    DataDirInUseError,
    ProcessEntry,
    Register,
    open_data_dir,
    read_register,
    temporary_data_dir,
)


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


def test_a_process_that_outlives_the_supervisor_keeps_the_lock(tmp_path: Path) -> None:
    with open_data_dir(tmp_path) as data_dir:
        child = subprocess.Popen(["/bin/cat"], stdin=subprocess.PIPE, pass_fds=(data_dir.lock_fd,))
    with pytest.raises(DataDirInUseError), open_data_dir(tmp_path):
        pass
    child.communicate(timeout=10)
    with open_data_dir(tmp_path):
        pass


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
