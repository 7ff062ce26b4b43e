"""Proving audit logs: whatever is done to lines, parts, chains and heads is named, and nothing else is."""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable

import pytest

from polychrome.audit.commands import report_lines
from polychrome.audit.prove import SILENT_S, UNSEEN_S, AuditReport, prove_audit
from shared.objects.keys import AuditPart, audit_heads_key
from shared.tenancy.audit_chain import NOTHING, check_part, seal
from tests.logservice.audit.test_keeper import DAY_S, Chains

PARTS = 4
Tamper = Callable[[Chains, list[AuditPart]], Awaitable[None]]


async def proved(chains: Chains) -> AuditReport:
    return await prove_audit(chains.bucket, chains.clock, lambda _: None)


async def written() -> tuple[Chains, list[AuditPart]]:
    """Two chains, of which heads have seen the whole; the parts of the first one."""
    chains = Chains()
    parts = [await chains.write("a") for _ in range(PARTS)]
    await chains.write("b", closed=True)
    await chains.keeper.step()
    return chains, parts


async def test_logs_that_nobody_has_touched_are_whole() -> None:
    chains, _ = await written()
    await chains.write("a")
    report = await proved(chains)
    assert (report.findings, report.chains, report.parts, report.entries) == ([], 2, PARTS + 2, PARTS + 2)
    assert report_lines(report)[-1] == "whole"


async def change_a_line(chains: Chains, parts: list[AuditPart]) -> None:
    data = await chains.bucket.get(parts[1].key)
    await chains.bucket.put(parts[1].key, data.replace(b'"route":"x"', b'"route":"y"'))


async def change_a_last_line(chains: Chains, parts: list[AuditPart]) -> None:
    data = await chains.bucket.get(parts[1].key)
    await chains.bucket.put(parts[1].key, data.replace(b'"closed":false', b'"closed":true'))


async def change_the_newest_last_line(chains: Chains, parts: list[AuditPart]) -> None:
    data = await chains.bucket.get(parts[-1].key)
    await chains.bucket.put(parts[-1].key, data.replace(b'"closed":false', b'"closed":true'))


async def remove_a_part(chains: Chains, parts: list[AuditPart]) -> None:
    await chains.bucket.delete([parts[1].key])


async def remove_the_first(chains: Chains, parts: list[AuditPart]) -> None:
    await chains.bucket.delete([parts[0].key])


async def remove_the_newest(chains: Chains, parts: list[AuditPart]) -> None:
    await chains.bucket.delete([part.key for part in parts[2:]])


async def remove_all(chains: Chains, parts: list[AuditPart]) -> None:
    await chains.bucket.delete([part.key for part in parts])


async def replace_a_part(chains: Chains, parts: list[AuditPart]) -> None:
    """By one without its event, well formed, and following the one before."""
    prev = check_part(parts[1], await chains.bucket.get(parts[1].key)).prev
    await chains.bucket.put(parts[1].key, seal(parts[1], prev, []).data)


async def replace_the_newest(chains: Chains, parts: list[AuditPart]) -> None:
    prev = check_part(parts[-1], await chains.bucket.get(parts[-1].key)).prev
    await chains.bucket.put(parts[-1].key, seal(parts[-1], prev, []).data)


async def replace_the_first(chains: Chains, parts: list[AuditPart]) -> None:
    await chains.bucket.put(parts[0].key, seal(parts[0], NOTHING, []).data)


async def swap_parts(chains: Chains, parts: list[AuditPart]) -> None:
    one, other = [await chains.bucket.get(part.key) for part in parts[1:3]]
    await chains.bucket.put(parts[1].key, other)
    await chains.bucket.put(parts[2].key, one)


async def copy_a_part_to_another_day(chains: Chains, parts: list[AuditPart]) -> None:
    await chains.bucket.put(parts[1]._replace(day="2099-01-01").key, await chains.bucket.get(parts[1].key))


async def add_behind_the_end(chains: Chains, parts: list[AuditPart]) -> None:
    (chain, (number, prev)), *_ = ((name, end) for name, end in chains.ends.items() if name.startswith("b"))
    added = seal(AuditPart(parts[0].day, chain, number), prev, [])
    await chains.bucket.put(added.place.key, added.data)


async def put_something_else(chains: Chains, parts: list[AuditPart]) -> None:
    await chains.bucket.put(f"audit/{parts[0].day}/note.txt", b"hello")


async def remove_heads(chains: Chains, parts: list[AuditPart]) -> None:
    for _ in range(2):
        await chains.write("c")
        await chains.keeper.step()
    await chains.bucket.delete([audit_heads_key(2)])


async def change_heads(chains: Chains, parts: list[AuditPart]) -> None:
    data = await chains.bucket.get(audit_heads_key(1))
    await chains.bucket.put(audit_heads_key(1), data.replace(b'"last":3', b'"last":2'))


async def replace_heads(chains: Chains, parts: list[AuditPart]) -> None:
    old = await chains.heads()
    await chains.write("c")
    await chains.keeper.step()
    forged = type(old)(**{name: getattr(old, name) for name in old.__struct_fields__} | {"writer": "x", "sha256": ""})
    await chains.bucket.put(audit_heads_key(1), forged.encode())


TAMPERING: list[tuple[Tamper, str]] = [
    (change_a_line, "line 1 was changed"),
    (change_a_last_line, "it does not follow part 1: the last line of that one was changed"),
    (change_the_newest_last_line, "its last line is not the one that the heads have seen"),
    (remove_a_part, "part 1 is missing"),
    (remove_the_first, "part 0 is missing"),
    (remove_the_newest, "parts 2 to 3 are missing, at its end"),
    (remove_all, "parts 0 to 3 are missing, at its end"),
    (replace_a_part, "it does not follow part 1"),
    (replace_the_newest, "its last line is not the one that the heads have seen"),
    (replace_the_first, "it does not follow part 0"),
    (swap_parts, "and not the one whose place it has"),
    (copy_a_part_to_another_day, "it was added: part 1 stands elsewhere"),
    (add_behind_the_end, "it was added: the process had closed the log before"),
    (put_something_else, "it is no part of an audit log"),
    (remove_heads, "before it, number 2 is missing"),
    (change_heads, "is damaged"),
    (replace_heads, "it does not follow the heads 1"),
]


@pytest.mark.parametrize(("tamper", "what"), TAMPERING, ids=[case[0].__name__ for case in TAMPERING])
async def test_what_was_done_is_named(tamper: Tamper, what: str) -> None:
    chains, parts = await written()
    await tamper(chains, parts)
    report = await proved(chains)
    assert report.found == len(report.findings) > 0
    assert what in " ".join(f"{finding.name} {finding.what}" for finding in report.findings)
    assert report_lines(report)[-1].startswith("damaged")


async def test_logs_are_whole_behind_what_was_deleted_because_of_its_age() -> None:
    chains, _ = await written()
    for _ in range(6):
        chains.clock.now_s += DAY_S
        last = await chains.write("a")
        await chains.keeper.step()
    report = await proved(chains)
    assert (report.findings, report.parts) == ([], 4)
    await chains.bucket.delete([last._replace(number=last.number - 3, day=(await oldest_day(chains))).key])
    assert "is missing" in (await proved(chains)).findings[0].what, "what stands behind the cut is held"


async def oldest_day(chains: Chains) -> str:
    return (await chains.keys("audit/2"))[0].split("/")[1]


async def test_what_a_crash_left_before_the_cut_is_not_damage() -> None:
    chains, parts = await written()
    left = await chains.bucket.get(parts[2].key)
    for _ in range(6):
        chains.clock.now_s += DAY_S
        await chains.write("a")
    await chains.keeper.step()
    await chains.bucket.put(parts[2].key, left)
    assert (await proved(chains)).findings == []


async def test_a_process_that_was_killed_is_said_and_is_no_damage() -> None:
    chains, parts = await written()
    chains.clock.now_s += SILENT_S + 1
    report = await proved(chains)
    assert (report.findings, report.unclosed) == ([], [parts[0].chain])
    assert "its process was killed" in report_lines(report)[0]


async def test_parts_that_no_heads_have_seen_are_said_and_without_any_heads_are_damage() -> None:
    chains, _ = await written()
    await chains.write("a")
    chains.clock.now_s += UNSEEN_S + 1
    report = await proved(chains)
    assert (report.findings, report.unseen) == ([], 1)
    await chains.bucket.delete([audit_heads_key(1)])
    assert "there are no heads" in (await proved(chains)).findings[0].what


async def test_a_deletion_that_happens_meanwhile_is_not_taken_for_damage(monkeypatch: pytest.MonkeyPatch) -> None:
    """Old parts go between the reading of the heads and the listing of the parts."""
    chains, _ = await written()
    for _ in range(3):
        chains.clock.now_s += DAY_S
        await chains.write("a")
    await chains.another(0).step()
    chains.clock.now_s += DAY_S
    get, cutting = chains.bucket.get, [True]

    async def cut_after_reading(key: str) -> bytes:
        data = await get(key)
        if key.startswith("audit/heads/") and cutting and cutting.pop():
            await chains.another().step()
        return data

    monkeypatch.setattr(chains.bucket, "get", cut_after_reading)
    report = await proved(chains)
    assert not cutting
    assert report.findings == []
    assert report.parts < PARTS + 3


async def test_whatever_byte_is_changed_anywhere_it_is_found() -> None:
    chains, _ = await written()
    await chains.keeper.step()
    chance = random.Random(1)
    for key in await chains.keys("audit/"):
        data = await chains.bucket.get(key)
        for at in chance.sample(range(len(data)), 60):
            altered = bytearray(data)
            altered[at] ^= 1 << chance.randrange(8)
            await chains.bucket.put(key, bytes(altered))
            report = await proved(chains)
            assert report.found, (key, at)
        await chains.bucket.put(key, data)
    assert not (await proved(chains)).found
