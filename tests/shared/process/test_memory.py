import asyncio
import subprocess
import sys
import weakref

import pytest

from shared.process import memory
from shared.process.memory import TrimSchedule
from tests.outside.paths import CHECKOUT


def test_memory_is_given_back_once_at_the_first_rest_after_work() -> None:
    schedule = TrimSchedule(cpu_s=10.0)
    cpu_s, trimmed = 10.0, []
    for share in (0.0, 0.01, 0.9, 0.1, 0.4, 0.02, 0.0, 0.1, 0.01, 0.3, 0.0):
        cpu_s += 2.0 * share
        trimmed.append(schedule.due(cpu_s, 2.0))
    assert [i for i, due in enumerate(trimmed) if due] == [5, 10]


async def test_the_loop_looks_again_and_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "CHECK_INTERVAL_S", 0.001)
    monkeypatch.setattr(memory, "WORK_CPU_S", 0.0)  # always after work
    monkeypatch.setattr(memory, "IDLE_SHARE", 1e9)  # and always at rest
    rounds = asyncio.Event()
    times = 0

    def count() -> None:
        nonlocal times
        times += 1
        if times == 3:
            loop.call_soon_threadsafe(rounds.set)

    loop = asyncio.get_running_loop()
    monkeypatch.setattr(memory, "trim", count)
    running = asyncio.create_task(memory.trim_when_idle())
    async with asyncio.timeout(10):
        await rounds.wait()
    running.cancel()


def test_giving_back_now_is_harmless() -> None:
    kept = bytearray(b"kept" * 1000)
    memory.trim()
    assert kept[:4] == b"kept"


FAULTS = """
import resource
import numpy as np
from shared.process.memory import keep_freed_memory

def faults():
    before = resource.getrusage(resource.RUSAGE_THREAD).ru_minflt
    for _ in range(100):
        arrays = [np.ones(40_000) for _ in range(4)]
        del arrays
    return resource.getrusage(resource.RUSAGE_THREAD).ru_minflt - before

keep_freed_memory()
faults()
print(faults())
"""


@pytest.mark.skipif(sys.platform != "linux", reason="counts page faults as Linux does")
def test_with_memory_kept_for_reuse_arrays_made_again_and_again_are_not_faulted_in_again() -> None:
    told = subprocess.run([sys.executable, "-c", FAULTS], capture_output=True, text=True, check=True, cwd=CHECKOUT)
    assert int(told.stdout) < 100


def test_arrow_takes_its_memory_where_it_can_be_trimmed_from() -> None:
    program = "import shared.process.service, pyarrow; print(pyarrow.default_memory_pool().backend_name)"
    told = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, cwd=CHECKOUT)
    assert told.stdout.strip() == "system"


def test_what_hangs_in_a_cycle_is_let_go_of() -> None:
    class Node:
        other: object

    first, second = Node(), Node()
    first.other, second.other = second, first
    alive = weakref.ref(first)
    del first, second
    memory.trim()
    assert alive() is None
