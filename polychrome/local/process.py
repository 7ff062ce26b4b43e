"""A child process: started, watched, signalled. Shared by the supervisor and the test harness."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import urllib.error
import urllib.request
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Protocol

from polychrome.local.fork import die_with_parent, open_log
from shared.process.disk import is_full

LOG_BYTES_MAX: Final = 32 * 1024 * 1024
_ADMIN_PORTS: Final = range(20_000, 32_000)
"""Below the ports that operating systems give to outgoing connections."""


@dataclass(frozen=True, slots=True)
class ProcessSpec:
    """A process to start: `name` is unique in the cluster, `environ` is added to the inherited environment. `fds` are
    file descriptors that it inherits.
    """

    name: str
    role: str
    argv: tuple[str, ...]
    environ: Mapping[str, str] = field(default_factory=dict)
    fds: tuple[int, ...] = ()

    @property
    def id(self) -> str | None:
        """The process's id in the membership; None where it has none, or draws one itself."""
        return self.environ.get("POLYCHROME_PROCESS_ID")

    @property
    def module(self) -> str | None:
        """The module that `argv` runs by this interpreter; None when it is another program."""
        return self.argv[2] if self.argv[:2] == (sys.executable, "-m") and len(self.argv) == 3 else None


def free_port(host: str = "127.0.0.1", wanted: int = 0) -> int:
    """A TCP port that is free now: the wanted one if it is free (0: any)."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, wanted))
        except OSError:
            probe.bind((host, 0))
        port: int = probe.getsockname()[1]
        return port


class Child(Protocol):
    """A child process by those methods of `subprocess.Popen` that are needed here."""

    @property
    def pid(self) -> int: ...
    def poll(self) -> int | None: ...
    def wait(self, timeout: float | None = None) -> int: ...
    def send_signal(self, number: int, /) -> None: ...


Fork = Callable[[str, str, Mapping[str, str], Path, Sequence[int]], Child]
"""Starts a module, under a name, with an environment and a log file, without some file descriptors."""


class Process:
    """A child process with its log file. Its admin endpoint keeps its port from start to start, unless another program
    takes it.

    The child is a process group of its own, so that a Ctrl-C in the terminal reaches the supervisor alone, which stops
    all processes in order. It dies with its parent, and inherits the file descriptors `keep_fds`: the lock on the data
    directory is held as long as a process lives that writes there. With `fork`, modules of this project begin as copies
    of a process that has imported much already: `ForkedModule`, or what is called like it, makes them. Of the
    descriptors `others_fds`, which other processes inherit, it has none but its own.
    """

    def __init__(
        self,
        spec: ProcessSpec,
        log_path: Path,
        keep_fds: tuple[int, ...] = (),
        *,
        fork: Fork | None = None,
        others_fds: tuple[int, ...] = (),
    ) -> None:
        self.spec = spec
        self.log_path = log_path
        self.admin_address: str | None = None
        self._log_start = 0
        self._keep_fds = (*keep_fds, *spec.fds)
        self._close_fds = tuple(set(others_fds) - set(spec.fds))
        self._fork = fork
        self._popen: Child | None = None

    @property
    def pid(self) -> int | None:
        return self._popen.pid if self._popen is not None else None

    def start(self) -> None:
        """Starts it, with a free admin port; its output is added to the log file. Raises OSError."""
        rotate(self.log_path)
        environ = os.environ | dict(self.spec.environ)
        if self.spec.role != "redis":
            wanted = _ADMIN_PORTS[zlib.crc32(bytes(self.log_path)) % len(_ADMIN_PORTS)]
            self.admin_address = f"127.0.0.1:{free_port(wanted=wanted)}"
            environ["POLYCHROME_ADMIN_HOST"], environ["POLYCHROME_ADMIN_PORT"] = self.admin_address.split(":")
        self._log_start = self.log_path.stat().st_size if self.log_path.exists() else 0
        if self._fork is not None and self.spec.module is not None:
            self._popen = self._fork(self.spec.module, self.spec.name, environ, self.log_path, self._close_fds)
            return
        log = open_log(self.log_path)
        try:
            self._popen = subprocess.Popen(
                self.spec.argv,
                env=environ,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                process_group=0,
                pass_fds=self._keep_fds,
                preexec_fn=die_with_parent,  # noqa: PLW1509  (it calls one function of libc and allocates nothing)
            )
        finally:
            os.close(log)

    def exit_code(self) -> int | None:
        """The exit code, negative for a signal; None while it runs, and before it was started."""
        return self._popen.poll() if self._popen is not None else None

    def running(self) -> bool:
        return self._popen is not None and self._popen.poll() is None

    def ready(self) -> bool:
        """Whether its admin endpoint says that it is ready; False for a Redis server, which has none."""
        if not self.running() or self.admin_address is None:
            return False
        return is_ready(self.admin_address)

    def send(self, number: signal.Signals) -> None:
        """Sends a signal, if it runs."""
        if self._popen is not None and self._popen.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                self._popen.send_signal(number)

    def wait(self, timeout_s: float) -> bool:
        """Waits for its end; whether it ended within `timeout_s` seconds."""
        if self._popen is None:
            return True
        try:
            self._popen.wait(timeout_s)
        except subprocess.TimeoutExpired:
            return False
        return True

    def kill(self) -> None:
        """Kills it and waits for its end."""
        self.send(signal.SIGKILL)
        if self._popen is not None:
            self._popen.wait()

    def log_tail(self, lines: int = 20) -> str:
        """The last lines that it has logged since this start: those of earlier runs would only mislead."""
        if not self.log_path.exists():
            return ""
        with self.log_path.open("rb") as log:
            if self._log_start <= os.fstat(log.fileno()).st_size:  # else it was rotated since
                log.seek(self._log_start)
            logged = log.read().decode(errors="replace")
        return "\n".join(logged.splitlines()[-lines:])


def is_ready(admin_address: str, timeout_s: float = 1.0) -> bool:
    """Whether the admin endpoint at this address (host:port) answers `/readyz` by 200 in time."""
    try:
        with urllib.request.urlopen(f"http://{admin_address}/readyz", timeout=timeout_s) as answer:
            return bool(answer.status == 200)
    except OSError:  # refused, 503, too slow
        return False


def rotate(log_path: Path) -> None:
    """Moves the content of a log file beyond LOG_BYTES_MAX to one older log file. The file is copied and emptied, and
    not renamed, because its process has it open for appending. On a full disk its content is dropped, the older one's
    too: that makes room.
    """
    older = log_path.with_name(log_path.name + ".1")
    with contextlib.suppress(FileNotFoundError):
        if log_path.stat().st_size > LOG_BYTES_MAX:
            try:
                shutil.copyfile(log_path, older)
            except OSError as error:
                if not is_full(error):
                    raise
                older.unlink(missing_ok=True)
            os.truncate(log_path, 0)
