"""A cache directory for this process alone, where several processes were given the same parent directory.

```text
<directory>/slot-<n>/lock        locked by one process as long as it lives; the next process takes the next number
<directory>/slot-<n>/segments/   its segment cache, found again by the process that takes the number later
```
"""

from __future__ import annotations

import contextlib
import fcntl
from collections.abc import Iterator
from pathlib import Path
from typing import Final

PROCESSES_MAX: Final = 256
"""Most processes that share one parent directory."""


@contextlib.contextmanager
def locked_cache_dir(parent: Path) -> Iterator[Path]:
    """The first of the numbered directories in `parent` that no living process has locked; locked, and created if
    need be. Raises RuntimeError when all are taken.
    """
    for number in range(PROCESSES_MAX):
        directory = parent / f"slot-{number}"
        directory.mkdir(parents=True, exist_ok=True)
        with (directory / "lock").open("a") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                continue
            yield directory
            return
    raise RuntimeError(f"{parent} has {PROCESSES_MAX} cache directories, all in use")
