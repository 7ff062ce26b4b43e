"""Children that begin as copies of this process instead of as new interpreters.

Most of what the processes of a cluster import is the same: it is imported once, here, and every child shares those
pages until it writes to them. A cluster takes half of the memory then, and is up in half of the time.

This process must have no other thread of its own when it forks: threads, and the locks they hold, would not be there in
the copy. `prepare` imports what starts none.
"""

from __future__ import annotations

import ctypes
import gc
import importlib
import multiprocessing
import os
import runpy
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from shared.process.disk import is_full

_PR_SET_NAME: Final = 15
_PR_SET_PDEATHSIG: Final = 1
_LIBC: Final = ctypes.CDLL(None)  # loaded here: between fork and exec there is no place for it


PRELOADED: Final = (
    "cryptography.hazmat.primitives.poly1305",
    "shared.catalog",
    "shared.cluster.registration",
    "shared.log.jobs",
    "shared.log.log",
    "shared.manifest.store",
    "shared.objects.open",
    "shared.process.service",
    "shared.redis.fence",
    "shared.rpc.server",
    "shared.segment.cache",
    "shared.segment.reader",
)
"""Modules that most roles import, with all that these import."""


def prepare() -> None:
    """Imports what the roles have in common, and keeps the garbage collector from writing to it."""
    for module in PRELOADED:
        importlib.import_module(module)
    gc.collect()
    gc.freeze()


def die_with_parent() -> None:
    """Has the kernel kill this process when its parent ends. Safe between fork and exec.

    A parent that ends without having stopped its children was killed. They are killed too, instead of finishing what
    they do: a new cluster on the same data has to wait for the last of them, and nothing acknowledged is lost.
    """
    _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def open_log(log_path: Path) -> int:
    """A file descriptor to append to a log file; of the null device when the file cannot be opened, on a full disk:
    a process must run without a log then.
    """
    try:
        return os.open(log_path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    except OSError as error:
        if not is_full(error):
            raise
        return os.open(os.devnull, os.O_WRONLY)


class ForkedModule:
    """`python -m <module>` in a copy of this process, which closes `close_fds` and has all other file descriptors too.
    Has the methods of `subprocess.Popen` that are needed here.
    """

    def __init__(
        self, module: str, name: str, environ: Mapping[str, str], log_path: Path, close_fds: Sequence[int] = ()
    ) -> None:
        self._process = multiprocessing.get_context("fork").Process(
            target=_become, args=(os.getpid(), module, name, environ, log_path, close_fds), name=name
        )
        self._process.start()
        assert self._process.pid is not None
        self.pid: int = self._process.pid

    def poll(self) -> int | None:
        """The exit code, negative for a signal; None while it runs."""
        return self._process.exitcode

    def wait(self, timeout: float | None = None) -> int:
        """The exit code, once it has ended. Raises subprocess.TimeoutExpired after `timeout` seconds (None: never)."""
        self._process.join(timeout)
        code = self._process.exitcode
        if code is None:
            raise subprocess.TimeoutExpired(self._process.name, timeout or 0.0)
        return code

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)


def _become(
    parent: int, module: str, name: str, environ: Mapping[str, str], log_path: Path, close_fds: Sequence[int]
) -> None:
    """The child's whole life: does what a shell does between fork and exec, then runs the module."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_DFL)
    os.setpgid(0, 0)
    die_with_parent()
    if os.getppid() != parent:  # the parent died before that was asked for
        os._exit(1)
    _LIBC.prctl(_PR_SET_NAME, name.encode()[:15])
    for descriptor in close_fds:
        os.close(descriptor)
    log = open_log(log_path)
    for standard in (1, 2):
        os.dup2(log, standard)
    os.close(log)
    sys.stdout, sys.stderr = (os.fdopen(standard, "w", buffering=1, closefd=False) for standard in (1, 2))
    os.environ.clear()
    os.environ.update(environ)
    sys.argv = [module]
    runpy.run_module(module, run_name="__main__", alter_sys=True)
