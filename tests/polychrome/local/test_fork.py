"""Processes that begin as copies of this one."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from polychrome.local.fork import ForkedModule
from polychrome.local.process import free_port


def _module(tmp_path: Path, text: str, monkeypatch: pytest.MonkeyPatch) -> str:
    (tmp_path / "a_module.py").write_text(text)
    monkeypatch.syspath_prepend(str(tmp_path))
    return "a_module"


def test_a_copy_runs_the_module_with_its_own_environment_log_and_exit_code(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = "import os, sys\nprint(__name__, os.environ['WHO'], os.getpgid(0) == os.getpid(), flush=True)\nsys.exit(3)\n"
    child = ForkedModule(_module(tmp_path, text, monkeypatch), "one", {"WHO": "me"}, tmp_path / "log")
    assert child.wait(30) == 3
    assert (tmp_path / "log").read_text() == "__main__ me True\n"
    assert "WHO" not in os.environ


def test_a_copy_takes_signals_itself_whatever_this_process_does_with_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = signal.signal(signal.SIGTERM, signal.SIG_IGN)
    try:
        module = _module(tmp_path, "import time\nprint('up', flush=True)\ntime.sleep(60)\n", monkeypatch)
        child = ForkedModule(module, "one", {}, tmp_path / "log")
    finally:
        signal.signal(signal.SIGTERM, before)
    with pytest.raises(subprocess.TimeoutExpired):
        child.wait(0.01)
    while not (tmp_path / "log").exists() or not (tmp_path / "log").read_text():
        assert child.poll() is None
    child.send_signal(signal.SIGTERM)
    assert child.wait(30) == -signal.SIGTERM


def loaded_by(text: str) -> set[str]:
    """The modules that a new interpreter has loaded after this code."""
    command = [sys.executable, "-c", text + "; import sys; print(*sys.modules)"]
    shown = subprocess.run(command, check=True, capture_output=True)
    return set(shown.stdout.decode().split())


def test_what_every_role_imports_is_imported_before_it_is_copied() -> None:
    roles = ("frontend", "logservice", "compactor", "queryworker")
    wanted = [loaded_by(f"import {role}.service, shared.process.service") for role in roles]
    copied = loaded_by("import polychrome.local.up, polychrome.local.fork as f; f.prepare()")
    assert not set.intersection(*wanted) - copied


def test_the_process_that_is_copied_has_no_other_thread() -> None:
    text = "import os, polychrome.local.fork as f; f.prepare(); print(len(os.listdir('/proc/self/task')))"
    assert subprocess.run([sys.executable, "-c", text], check=True, capture_output=True, text=True).stdout == "1\n"


def test_a_wanted_port_is_given_unless_it_is_taken() -> None:
    port = free_port()
    assert free_port(wanted=port) == port
