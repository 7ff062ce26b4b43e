"""How `make test` spreads the tests over processes (pytest-xdist): a module at a time, those that take long first.

Tests of a module share fixtures that are dear to set up, so they stay together. Where they share none and take long
each, they go one by one. What takes longest begins first, so that at the end every process has something short left.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterable
from typing import Any, Final

LONG: Final = (
    "tests/simulation/test_simulation.py",
    "tests/faults/test_kills.py",
    "tests/faults/test_rebuild.py",
    "tests/cluster/test_topology.py",
    "tests/processors/test_processors.py",
    "tests/model/test_against_the_model.py",
    "tests/cluster/test_rolling_restart.py",
    "tests/contract/test_recorded_cases.py",
    "tests/faults/test_forks.py",
    "tests/polychrome/test_manual.py",
    "tests/faults/test_catalog.py",
    "tests/faults/test_losses.py",
    "tests/fuzz/test_schema.py",
    "tests/polychrome/local/test_up.py",
    "tests/polychrome/backup/test_backup.py",
    "tests/faults/test_transactions.py",
    "tests/faults/test_restored_meanwhile.py",
)
"""Modules that take long, the longest first."""

ONE_BY_ONE: Final = frozenset({"tests/simulation/test_simulation.py", "tests/model/test_against_the_model.py"})
"""Modules whose tests are long and share no fixture."""


def module_of(nodeid: str) -> str:
    return nodeid.partition("::")[0]


def unit_of(nodeid: str) -> str:
    """The module, or the test alone: a unit goes to one process as a whole."""
    module = module_of(nodeid)
    return nodeid if module in ONE_BY_ONE else module


def in_order(nodeids: Iterable[str]) -> list[int]:
    """The numbers of the tests, long modules first; else as they came."""
    found = list(map(module_of, nodeids))
    place = {module: number for number, module in enumerate(LONG)}
    return sorted(range(len(found)), key=lambda number: place.get(found[number], len(place)))


def scheduler(config: Any, log: Any) -> Any:
    """The scheduler of pytest-xdist that gives these units to processes, in the order of the tests."""
    config.option.loadscopereorder = False
    made = importlib.import_module("xdist.scheduler").LoadScopeScheduling(config, log)
    made._split_scope = unit_of
    return made
