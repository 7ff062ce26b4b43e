"""The events of commands that work on a cluster's stores themselves."""

from __future__ import annotations

import pytest

from polychrome import audited
from polychrome.audited import write_command
from shared.tenancy.audit import Event
from shared.tenancy.audit_search import AuditQuery, parts_between
from tests.logservice.audit.test_keeper import Chains
from tests.polychrome.audit.test_prove import proved


async def test_a_cluster_that_writes_down_nothing_gets_no_event() -> None:
    chains = Chains()
    await write_command(chains.bucket, chains.clock, "repair")
    assert await chains.keys("") == []


async def test_a_command_leaves_its_event_in_a_chain_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    chains = Chains()
    await chains.write("a")
    await write_command(chains.bucket, chains.clock, "repair")
    monkeypatch.setattr(audited, "_user", lambda: "mia\n")
    await write_command(chains.bucket, chains.clock, "restore", "everything")
    report = await proved(chains)
    assert (report.findings, report.chains) == ([], 3)
    found = [
        entry
        async for part in parts_between(chains.bucket, None, None)
        for entry in AuditQuery(actor="operator").found_in(await chains.bucket.get(part.key))
    ]
    events = [entry for entry in found if isinstance(entry, Event)]
    assert {(event.route, event.subject) for event in events} == {
        ("polychrome repair", ""), ("polychrome restore", "everything"),
    }  # fmt: skip
    assert "mia\\n" in {event.actor.id for event in events}
