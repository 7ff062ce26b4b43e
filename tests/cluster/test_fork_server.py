"""Processes that begin as copies of the fork server."""

import signal
import subprocess
from pathlib import Path

import pytest

from tests.cluster.fork_server import ServedModule


def test_a_copy_of_the_server_has_its_own_log_and_exit_code(tmp_path: Path) -> None:
    log = tmp_path / "log"
    assert ServedModule("platform", "one", {}, log).wait(60) == 0
    assert "Linux" in log.read_text()
    assert ServedModule("tests.no_such_module", "two", {}, log).wait(60) == 1
    assert "No module named tests.no_such_module" in log.read_text()


def test_a_copy_of_the_server_is_waited_for_and_signalled(tmp_path: Path) -> None:
    child = ServedModule("tests.cluster.sleeping", "sleeping", {}, tmp_path / "log")
    with pytest.raises(subprocess.TimeoutExpired):
        child.wait(0.01)
    child.send_signal(signal.SIGKILL)
    assert child.wait(60) == -signal.SIGKILL
    child.send_signal(signal.SIGTERM)  # it has ended: nobody else gets the signal
