"""A folder for one process among several that were given the same directory.

```text
<directory>/slot-<n>/lock        held by one process as long as it lives; the next one takes the next slot
<directory>/slot-<n>/segments/   its segment cache, found again by whoever takes the slot later
```
"""

from __future__ import annotations

import contextlib
import fcntl
from collections.abc import Iterator
from pathlib import Path
from typing import Final

SLOTS_MAX: Final = 256


@contextlib.contextmanager
def own_slot(directory: Path) -> Iterator[Path]:
    """The first slot that no living process has."""
    for number in range(SLOTS_MAX):
        slot = directory / f"slot-{number}"
        slot.mkdir(parents=True, exist_ok=True)
        with (slot / "lock").open("a") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                continue
            yield slot
            return
    raise RuntimeError(f"{directory} has {SLOTS_MAX} slots, all in use")
