"""Promises 1 to 5 in a whole cluster that everything happens to (docs/design/2026-11-30-simulation.md).

Each batch of seeds runs in a process of its own, which has the clock, the random numbers and the hashes of the runs.
"""

from __future__ import annotations

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest

SEEDS = 200
BATCH = 25


def simulate(*options: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", "tests.simulation", *options], capture_output=True, text=True)


@pytest.mark.timeout(600)
def test_no_seed_breaks_a_promise() -> None:
    def batch(first: int) -> subprocess.CompletedProcess[str]:
        return simulate("--seeds", str(BATCH), "--from", str(first))

    with ThreadPoolExecutor(os.cpu_count()) as pool:  # a batch keeps one core busy
        for ended in pool.map(batch, range(1, SEEDS + 1, BATCH)):
            assert ended.returncode == 0, ended.stdout + ended.stderr


@pytest.mark.timeout(300)
def test_a_seed_has_one_trace_whatever_ran_before_it() -> None:
    several = simulate("--seeds", "5", "--from", "3", "--digests").stdout.splitlines()
    alone = simulate("--seeds", "1", "--from", "7", "--digests").stdout.splitlines()
    assert several[:5][-1] == alone[0]
    assert alone[0].startswith("7 ")
