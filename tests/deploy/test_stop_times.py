"""Whoever stops a process gives it the time that it takes at most: one that is killed gives nothing back."""

from __future__ import annotations

import re
from typing import Any

import pytest
import yaml

from frontend.collections.forking import CLOSE_S_MAX
from frontend.http.server import CLOSE_TIMEOUT_S
from frontend.service import LAST_HINTS_S
from polychrome.local.supervisor import STOP_GRACE_S, stop_grace_s
from shared.cluster.registration import LEAVE_S
from shared.process.config import ROLES, ProcessConfig, settings
from shared.process.service import ADMIN_CLOSE_S
from shared.process.stopping import CLOSE_S, ended_after_s
from tests.outside.paths import CHECKOUT

(DRAIN_TIMEOUT_S,) = [each.default for each in settings(ProcessConfig) if each.env == "POLYCHROME_DRAIN_TIMEOUT_S"]


@pytest.mark.parametrize("role", ROLES)
def test_compose_waits_longer_than_a_process_takes_to_stop(role: str) -> None:
    compose: dict[str, Any] = yaml.safe_load((CHECKOUT / "compose.yaml").read_text())
    service = compose["services"][role]
    assert "POLYCHROME_DRAIN_TIMEOUT_S" not in service["environment"], "then its value counts, and not the default"
    grace = re.fullmatch(r"(\d+)s", service["stop_grace_period"])
    assert grace is not None
    assert ended_after_s(DRAIN_TIMEOUT_S) < int(grace[1])


@pytest.mark.parametrize("role", ROLES)
def test_every_process_lives_the_life_that_is_bounded(role: str) -> None:
    main = (CHECKOUT / role / "__main__.py").read_text()
    assert "from shared.process.service import main" in main


def test_the_supervisor_waits_longer_than_a_process_takes_to_stop() -> None:
    assert ended_after_s(DRAIN_TIMEOUT_S) < stop_grace_s({}) == STOP_GRACE_S
    assert ended_after_s(100.0) < stop_grace_s({"POLYCHROME_DRAIN_TIMEOUT_S": "100"})
    assert stop_grace_s({"POLYCHROME_DRAIN_TIMEOUT_S": "soon"}) == STOP_GRACE_S


def test_a_frontend_has_the_time_to_give_back_what_its_forks_reserved() -> None:
    """Handlers are waited for, then their connections, then the forks that were cancelled with them."""
    assert 2 * CLOSE_TIMEOUT_S + CLOSE_S_MAX + ADMIN_CLOSE_S < CLOSE_S


def test_the_last_words_of_a_process_are_said_within_its_time_for_draining() -> None:
    assert max(LAST_HINTS_S, LEAVE_S) < DRAIN_TIMEOUT_S / 4
