"""What a server costs: CPU time and memory over all of its processes, read from /proc."""

import os
import time
from pathlib import Path
from typing import Final

_TICKS_PER_S: Final = os.sysconf("SC_CLK_TCK")
_MIB: Final = 1024


def family(root_pid: int) -> list[int]:
    """The process and all that descend from it."""
    children: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and (fields := _stat(int(entry.name))):
            children.setdefault(int(fields[1]), []).append(int(entry.name))
    found = [root_pid]
    for pid in found:
        found.extend(children.get(pid, ()))
    return found


def cpu_s(pids: list[int]) -> float:
    """User and system time since they started; the waited-for children of each are counted too, so that a process
    that ends between two readings is not lost.
    """
    return sum(sum(map(int, fields[11:15])) for pid in pids if (fields := _stat(pid))) / _TICKS_PER_S


def memory_mib(pids: list[int]) -> float:
    """Proportional set size: pages that several processes share count once."""
    total = 0
    for pid in pids:
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                total += int(line.split()[1])
    return total / _MIB


def wait_until_idle(root_pid: int, timeout_s: float, window_s: float = 0.25, share: float = 0.08) -> float:
    """Until the family used less than `share` of a core in two windows in a row. Returns `time.monotonic()` of the
    moment when that began.
    """
    deadline_s = time.monotonic() + timeout_s
    quiet, quiet_since_s = 0, time.monotonic()
    while quiet < 2:
        if time.monotonic() > deadline_s:
            raise TimeoutError(f"the server of process {root_pid} is still busy after {timeout_s} s")
        began_s, before = time.monotonic(), cpu_s(family(root_pid))
        time.sleep(window_s)
        if (cpu_s(family(root_pid)) - before) / window_s < share:
            quiet_since_s = began_s if quiet == 0 else quiet_since_s
            quiet += 1
        else:
            quiet = 0
    return quiet_since_s


def _stat(pid: int) -> list[str]:
    """Fields of /proc/<pid>/stat after the name: [0] state, [1] parent, [11:15] CPU ticks. Empty when it is gone."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    except (FileNotFoundError, ProcessLookupError):
        return []
