"""Promises 1 to 5 in a whole cluster that everything happens to (docs/design/2026-11-30-simulation.md).

Each batch of seeds runs in a process of its own, which has the clock, the random numbers and the hashes of the runs;
pytest-xdist has batches run beside each other.
"""

from __future__ import annotations

import subprocess
import sys

import pytest

SEEDS = 200
BATCH = 50


def simulate(*options: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", "tests.simulation", *options], capture_output=True, text=True)


@pytest.mark.timeout(600)
@pytest.mark.parametrize("first", range(1, SEEDS + 1, BATCH))
def test_no_seed_breaks_a_promise(first: int) -> None:
    ended = simulate("--seeds", str(BATCH), "--from", str(first))
    assert ended.returncode == 0, ended.stdout + ended.stderr


@pytest.mark.timeout(300)
def test_a_seed_has_one_trace_whatever_ran_before_it() -> None:
    several = simulate("--seeds", "5", "--from", "3", "--digests").stdout.splitlines()
    alone = simulate("--seeds", "1", "--from", "7", "--digests").stdout.splitlines()
    assert several[:5][-1] == alone[0]
    assert alone[0].startswith("7 ")
