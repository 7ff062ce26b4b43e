"""The lock that keeps a data directory to one cluster.

```text
lock        a file with "<pid> <start time>" of the supervisor that holds it; locked (flock)
<root>      the directory itself, and its folders with data: locked too
```

All of them are locked by the supervisor, and the descriptors are inherited by every process of the cluster: the
directory counts as in use until the last process is gone that may write to it. The file alone would not do. Once it is
removed, another cluster would make a new one, and lock that. A directory cannot be removed while it has data in it; and
whatever path leads to it, a link or a bind mount, it is the same directory.

A file system that cannot lock directories (NFS) leaves the lock file alone to keep clusters apart.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Final

LOCK_WAIT_S: Final = 15.0
"""Longest wait for the end of processes that a killed supervisor has left, in seconds. It takes them milliseconds."""

_POLL_S: Final = 0.02
_CANNOT_LOCK: Final = frozenset({errno.EBADF, errno.ENOTSUP, errno.EOPNOTSUPP, errno.EINVAL})
"""Errors of flock on a directory where the file system has no locks on directories."""


class LockedError(Exception):
    """Another cluster holds a lock. `owner` is the process id of its supervisor, None when that is not running."""

    def __init__(self, owner: int | None) -> None:
        super().__init__("locked")
        self.owner = owner


@contextlib.contextmanager
def directory_locks(root: Path, folders: Sequence[Path], waiting: Callable[[], None]) -> Iterator[tuple[int, ...]]:
    """Locks `root` and the `folders`, all existing directories, until the end; yields the locks' file descriptors.

    While no other supervisor runs, only what a killed one has left, it waits for at most LOCK_WAIT_S seconds, and calls
    `waiting` before. Raises LockedError, and OSError.
    """
    with contextlib.ExitStack() as stack:
        yield _locked(root, folders, waiting, stack)


def _locked(
    root: Path, folders: Sequence[Path], waiting: Callable[[], None], stack: contextlib.ExitStack
) -> tuple[int, ...]:
    deadline_s = None
    while True:
        try:
            with contextlib.ExitStack() as attempt:
                descriptors = _lock_all(root, folders, attempt)
                stack.push(attempt.pop_all())
                return descriptors
        except LockedError as error:
            if deadline_s is None and error.owner is None:
                waiting()
            deadline_s = deadline_s or time.monotonic() + LOCK_WAIT_S
            if error.owner is not None or time.monotonic() > deadline_s:
                raise
        time.sleep(_POLL_S)


def _lock_all(root: Path, folders: Sequence[Path], stack: contextlib.ExitStack) -> tuple[int, ...]:
    path = root / "lock"
    file = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    stack.callback(os.close, file)
    descriptors = [file]
    for folder in (root, *folders):
        descriptors.append(os.open(folder, os.O_RDONLY | os.O_DIRECTORY))
        stack.callback(os.close, descriptors[-1])
    for descriptor in descriptors:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise LockedError(_owner(file)) from None
        except OSError as error:
            if descriptor == file or error.errno not in _CANNOT_LOCK:
                raise
    _write_owner(file)
    return tuple(descriptors)


def _write_owner(file: int) -> None:
    """Names this process in the lock file. On a full volume the file stays as it is: a start that finds it locked takes
    longer to refuse then, and still refuses.
    """
    with contextlib.suppress(OSError):
        os.pwrite(file, f"{os.getpid()} {_started(os.getpid())}\n".encode().ljust(64), 0)


def _owner(file: int) -> int | None:
    """The process that the lock file names, if it is running still."""
    words = os.pread(file, 64, 0).split()
    if len(words) != 2 or not words[0].isdigit():
        return None
    pid = int(words[0])
    return pid if words[1].decode() == _started(pid) else None


def _started(pid: int) -> str:
    """A text that tells this process from later ones with its id: when it was started, in ticks since boot. Empty when
    there is no such process, "?" on a system that does not tell.
    """
    try:
        state, _, rest = Path(f"/proc/{pid}/stat").read_text().rpartition(")")
    except FileNotFoundError:
        return "" if Path("/proc/self/stat").exists() else "?"
    fields = rest.split()
    return fields[19] if state and fields[0] not in "ZX" else ""
