"""The cost of a server: CPU time and memory over all of its processes, read from /proc."""

import os
import time
from contextlib import suppress
from pathlib import Path
from typing import Final

_TICKS_PER_S: Final = os.sysconf("SC_CLK_TCK")
_KIB_PER_MIB: Final = 1024


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


def memory_mib(pids: list[int]) -> dict[str, float]:
    """Proportional set size by process: pages that several share count once. Processes of the same name are summed."""
    found: dict[str, float] = {}
    for pid in pids:
        with suppress(FileNotFoundError, ProcessLookupError):
            lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
            kib = sum(int(line.split()[1]) for line in lines if line.startswith("Pss:"))
            found[_name(pid)] = found.get(_name(pid), 0.0) + kib / _KIB_PER_MIB
    return found


def alive(pid: int) -> bool:
    """Whether it still holds anything: a dead child that nobody waited for does not."""
    return bool(fields := _stat(pid)) and fields[0] != "Z"


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


def _name(pid: int) -> str:
    """The name of the process by itself; of a Python that does not say, the module."""
    name = Path(f"/proc/{pid}/comm").read_text().strip()
    argv = Path(f"/proc/{pid}/cmdline").read_text().split("\0")
    return argv[argv.index("-m") + 1] if name.startswith("python") and "-m" in argv else name
