"""Proving audit logs from the bucket alone: every line, every part, every chain, and the heads that hold their ends.

Parts are read after the heads, so that heads name no part that is not written yet. A log service that deletes old parts
meanwhile writes other heads first: whoever finds something wrong looks whether there are any, and proves it once more.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Final

import msgspec

from shared.errors import Corrupt
from shared.objects.keys import AUDIT, AUDIT_HEADS, AuditPart, parse_audit_heads_key, parse_audit_key
from shared.objects.port import ObjectNotFound, ObjectStore
from shared.process.clock import Clock
from shared.process.concurrency import map_concurrently
from shared.tenancy.audit import Gap
from shared.tenancy.audit_chain import NOTHING, CheckedPart, check_part
from shared.tenancy.audit_heads import Head, Heads, decode_heads

READS_AT_ONCE: Final = 8
PARTS_AT_ONCE: Final = 16
UNSEEN_S: Final = 900.0
"""Age from which on a part that no heads have seen is said: heads are written once a minute."""
SILENT_S: Final = 2 * 24 * 3600.0
"""Age of the newest part of a chain from which on its process does not live: it would write a part a day."""
FINDINGS_MAX: Final = 1000


class AuditFinding(msgspec.Struct, frozen=True):
    """Something that is not as it was written: the key of an object, or the name of a chain, and what is wrong."""

    name: str
    what: str


class AuditReport(msgspec.Struct, frozen=True, kw_only=True):
    """The result. `lost` counts events that the logs themselves say are not in them. `unclosed` names chains whose
    process ended without closing them: it was killed, or its last parts are missing, and no heads have seen them.
    `unseen` counts parts that no heads hold although they are old enough.
    """

    chains: int
    parts: int
    entries: int
    bytes: int
    lost: int
    heads: str | None
    """The time of the newest heads."""
    findings: list[AuditFinding]
    found: int
    """Number of findings, of which `FINDINGS_MAX` are named."""
    unclosed: list[str]
    unseen: int


@dataclass(slots=True)
class _Tally:
    parts: int = 0
    entries: int = 0
    bytes: int = 0
    lost: int = 0
    unseen: int = 0
    found: int = 0
    findings: list[AuditFinding] = field(default_factory=list)
    unclosed: list[str] = field(default_factory=list)

    def note(self, name: str, what: str) -> None:
        self.found += 1
        if len(self.findings) < FINDINGS_MAX:
            self.findings.append(AuditFinding(name, what))


@dataclass(frozen=True, slots=True)
class _Listed:
    """A part in a listing, and when it was written by the bucket's clock, in seconds since the epoch."""

    part: AuditPart
    modified_s: float


async def prove_audit(objects: ObjectStore, clock: Clock, progress: Callable[[int], None]) -> AuditReport:
    """Proves all audit logs. `progress` is told of bytes that were read. Raises Unavailable."""
    while True:
        prover = _Prover(objects, clock, progress)
        report = await prover.prove()
        if not report.found or await prover.newest_key() == prover.heads_key:
            return report


class _Prover:
    def __init__(self, objects: ObjectStore, clock: Clock, progress: Callable[[int], None]) -> None:
        self._objects = objects
        self._now_s = clock.now()
        self._progress = progress
        self._tally = _Tally()
        self.heads_key: str | None = None

    async def prove(self) -> AuditReport:
        heads = await self._heads()
        ends: Mapping[str, Head] = heads.heads if heads is not None else {}
        chains = await self._chains(heads.kept_since if heads is not None else "")
        for chain in sorted({*chains, *ends}):
            await self._chain(chain, chains.get(chain, []), ends.get(chain))
        tally = self._tally
        if heads is None and tally.unseen:
            tally.note(AUDIT_HEADS, f"there are no heads, and {tally.unseen} parts that they should have seen long ago")
        return AuditReport(
            chains=len(chains), parts=tally.parts, entries=tally.entries, bytes=tally.bytes, lost=tally.lost,
            heads=heads.time if heads is not None else None, findings=tally.findings, found=tally.found,
            unclosed=tally.unclosed, unseen=tally.unseen,
        )  # fmt: skip

    # Heads

    async def newest_key(self) -> str | None:
        """The key of the newest heads, None when there are none."""
        keys = await self._heads_keys()
        return keys[-1] if keys else None

    async def _heads_keys(self) -> list[str]:
        return [
            info.key async for info in self._objects.list(AUDIT_HEADS) if parse_audit_heads_key(info.key) is not None
        ]

    async def _heads(self) -> Heads | None:
        """The newest heads that can be read, after a look at how all of them follow each other."""
        keys = await self._heads_keys()
        self.heads_key = keys[-1] if keys else None
        newest: Heads | None = None
        before: tuple[int, str] | None = None  # number and hash of the heads before
        for key in keys:
            number = parse_audit_heads_key(key)
            data = await self._get(key)
            if data is None or number is None:
                continue
            try:
                found = decode_heads(data, key)
            except Corrupt as error:
                self._tally.note(key, error.message)
            else:
                self._check_heads(found, before)
                newest = found
            before = (number, hashlib.sha256(data).hexdigest())
        return newest

    def _check_heads(self, found: Heads, before: tuple[int, str] | None) -> None:
        expected = found.oldest if before is None else before[0] + 1
        if found.number > expected:
            self._tally.note(found.key, f"before it, {_numbered('number', expected, found.number - 1)}")
        elif before is not None and found.follows != before[1]:
            self._tally.note(found.key, f"it does not follow the heads {before[0]}: one of them was replaced")

    # Chains

    async def _chains(self, kept_since: str) -> dict[str, list[_Listed]]:
        """The parts of each chain, by their numbers. Those of days that are not kept any more are left out."""
        chains: dict[str, list[_Listed]] = {}
        async for info in self._objects.list(AUDIT):
            part = parse_audit_key(info.key)
            if part is not None:
                if part.day >= kept_since:
                    chains.setdefault(part.chain, []).append(_Listed(part, info.modified_s))
            elif parse_audit_heads_key(info.key) is None:
                self._tally.note(info.key, "it is no part of an audit log")
        for parts in chains.values():
            parts.sort(key=lambda listed: (listed.part.number, listed.part.day))
        return chains

    async def _chain(self, chain: str, parts: list[_Listed], head: Head | None) -> None:
        check = _ChainCheck(chain, head, self._tally)
        for start in range(0, len(parts), PARTS_AT_ONCE):
            batch = parts[start : start + PARTS_AT_ONCE]
            read = await map_concurrently(lambda listed: self._get(listed.part.key), batch, at_once=READS_AT_ONCE)
            for listed, data in zip(batch, read, strict=True):
                if data is not None and listed.part.number >= check.first:
                    self._tally.bytes += len(data)
                    unseen = self._now_s - listed.modified_s > UNSEEN_S
                    check.part(listed.part, check_part(listed.part, data), unseen=unseen)
        check.end()
        if parts and not check.closed and self._now_s - parts[-1].modified_s > SILENT_S:
            self._tally.unclosed.append(chain)

    async def _get(self, key: str) -> bytes | None:
        """The object; None when it was deleted since it was listed."""
        try:
            data = await self._objects.get(key)
        except ObjectNotFound:
            return None
        self._progress(len(data))
        return data


class _ChainCheck:
    """Goes over the parts of a chain in the order of their numbers. `head` is what heads say of it."""

    def __init__(self, chain: str, head: Head | None, tally: _Tally) -> None:
        self._chain = chain
        self._head = head
        self._tally = tally
        self.first = head.first if head is not None else 0
        """The number of the first part that has to be there: those before it are deleted, or will be."""
        self.closed = False
        """Whether the process has said that nothing follows."""
        self._expected = self.first
        self._prev = head.before if head is not None else NOTHING

    def part(self, place: AuditPart, found: CheckedPart, *, unseen: bool) -> None:
        """The next part. `unseen`: it is so old that heads should have seen it."""
        note, head, number = self._tally.note, self._head, place.number
        if number < self._expected:
            note(place.key, f"it was added: part {number} stands elsewhere")
            return
        if self.closed:
            note(place.key, "it was added: the process had closed the log before")
        if number > self._expected:
            note(self._chain, _numbered("part", self._expected, number - 1))
        elif found.begin is not None and found.prev != self._prev:
            before = f"part {number - 1}: the last line of that one was changed" if number else "the beginning"
            note(place.key, f"it does not follow {before}, or this one was replaced")
        for flaw in found.flaws:
            note(place.key, flaw)
        if head is not None and number == head.last and found.sha256 != head.sha256:
            note(place.key, "its last line is not the one that the heads have seen")
        self._expected, self._prev, self.closed = number + 1, found.sha256, found.closed
        self._tally.parts += 1
        self._tally.entries += len(found.entries)
        self._tally.lost += sum(entry.lost for entry in found.entries if isinstance(entry, Gap))
        self._tally.unseen += unseen and (head is None or number > head.last)

    def end(self) -> None:
        """There are no more parts."""
        if self._head is not None and self._expected <= self._head.last:
            missing = _numbered("part", self._expected, self._head.last)
            self._tally.note(self._chain, f"{missing}, at its end: the heads have seen it")


def _numbered(noun: str, first: int, last: int) -> str:
    return f"{noun} {first} is missing" if first == last else f"{noun}s {first} to {last} are missing"
