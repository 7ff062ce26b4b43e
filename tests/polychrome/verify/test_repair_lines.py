"""`polychrome repair` for people: what cannot be repaired comes with a way out."""

import pytest

from polychrome.verify.model import Finding
from polychrome.verify.repair import Remedy, RepairStep, lost_with
from polychrome.verify.repair_commands import Repaired, repair_lines
from shared.catalog.damage import DamageKind

MANIFEST = Finding("c/0/manifests/1.json", DamageKind.MANIFEST, "is cut", collection="c", shard=0)
ENTRY = Finding("c/0/log/1-0", DamageKind.ENTRY, "is bad", collection="c", shard=0)
RECORDS = Finding("c/0/segments/1/records.arrow", DamageKind.RECORDS, "is cut", collection="c", shard=0)
ROOT = Finding("c/roots/1-2.json", DamageKind.ROOT, "is cut", collection="c")
ROW = Finding("pc:{catalog}:collections", DamageKind.OTHER, "is garbled")


@pytest.mark.parametrize(
    ("finding", "remedy", "done", "way_out"),
    [
        (MANIFEST, Remedy.NOTHING, False, "polychrome restore BACKUPS --collection c --as NAME"),
        (ROOT, Remedy.NOTHING, False, "the next round of compactions writes another one"),
        (ENTRY, Remedy.NOTHING, False, "--skip passes over it"),
        (ROW, Remedy.NOTHING, False, "restore a backup into an empty cluster"),
        (RECORDS, Remedy.REWRITE, True, "polychrome restore BACKUPS --collection c --as NAME"),
        (RECORDS, Remedy.REWRITE, False, ""),
    ],
)
def test_what_cannot_be_repaired_has_a_way_out(finding: Finding, remedy: Remedy, done: bool, way_out: str) -> None:
    step = RepairStep(finding, remedy, "something")
    lines = "\n".join(repair_lines(Repaired([step], done=done, damaged=True)))
    assert way_out in lines
    assert ("--from" in lines) == bool(way_out)


def test_what_was_repaired_needs_none() -> None:
    step = RepairStep(RECORDS, Remedy.COPY, done=True, outcome="put back")
    assert repair_lines(Repaired([step], done=True, damaged=False))[1:] == ["    put a copy back: put back", "repaired"]


def test_a_damaged_root_costs_no_reads() -> None:
    assert "nothing now" in lost_with(ROOT)
    assert lost_with(MANIFEST) == "reads of c are refused"
