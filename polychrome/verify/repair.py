"""Repairing what a verification has found, as far as it can be.

```text
damaged                             what is done                                       what is lost
a derived file of a segment         its shard is queued: a compaction rewrites it      nothing
an object of which a copy is        the copy is put in its place, once it is proven    nothing
found, with the right checksum      to be what was written
the records of a segment            its shard is queued: a compactor may have a        what the finding names, if
                                    whole copy                                         none has
a log entry, a copy is found        the copy takes its place                           nothing
a log entry, with `skip`            it is passed over                                  its operations
a snapshot or the journal           a new snapshot of the catalog is asked for         nothing, while Redis is there
a row or a state                    the log service restores it from the bucket        nothing that a snapshot has
anything else                       nothing                                            what the finding names
```

A copy of an object that is put back has the very bytes that the object was created with, by the checksum that others
keep of it: objects never change.
"""

from __future__ import annotations

import asyncio
import dataclasses
import enum
from collections.abc import Sequence
from pathlib import Path
from typing import Final, NamedTuple

import msgspec
from redis.asyncio import Redis

from polychrome.backup.model import FILES, LOG, decode_page
from polychrome.verify.model import Finding, Report
from shared.catalog.changes import Changes
from shared.catalog.damage import Damage, DamageKind, Damages
from shared.catalog.journal_entry import decode_entry
from shared.catalog.snapshot_form import check_snapshot
from shared.errors import Corrupt, Gone
from shared.history.sealed_log import decode_sealed
from shared.log.batch import payload_checksum
from shared.log.jobs import Jobs
from shared.log.state import Entry
from shared.log.substitutes import Substitutes
from shared.log.verification import DamagedEntry, RawEntry, verified_entry
from shared.manifest.roots import decode_root
from shared.objects.keys import parse_log_key
from shared.objects.port import ObjectNotFound, ObjectStore
from shared.process.clock import Clock
from shared.redis.client import command, retry_idempotent
from shared.redis.keys import Keys
from shared.segment.format import checksum

PRIORITY: Final = 500.0
"""Priority of a compaction that rewrites a damaged segment."""

POLL_S: Final = 0.2
"""Pause between two looks whether segments were rewritten."""

ASKED_BY: Final = "polychrome repair"


class Remedy(enum.StrEnum):
    """Remedies for what a finding names."""

    COPY = "put a copy back"
    REWRITE = "have the segment rewritten"
    COPY_ENTRY = "put a copy of the entry back"
    SKIP_ENTRY = "skip the entry"
    SNAPSHOT = "have a new snapshot taken"
    WAIT = "the log service restores it"
    NOTHING = "nothing can be done"


class RepairStep(msgspec.Struct, frozen=True):
    """A finding and its remedy. `lost` says what is lost with it, "" when nothing is. `done` says whether it was done;
    `outcome` what came of it.
    """

    finding: Finding
    remedy: Remedy
    lost: str = ""
    done: bool = False
    outcome: str = ""


class RepairStores(NamedTuple):
    """A running cluster, and a copy of its bucket or its backups, if there is one."""

    objects: ObjectStore
    redis: Redis
    keys: Keys
    copies: ObjectStore | None


class Repairer:
    """Plans and does repairs. `scratch` is a folder for copies that are being proven. With `skip`, entries of which
    there is no copy are skipped. Everything raises Unavailable.
    """

    def __init__(self, stores: RepairStores, scratch: Path, clock: Clock, *, skip: bool) -> None:
        self._stores = stores
        self._scratch = scratch
        self._clock = clock
        self._skip = skip
        self._damages = Damages(stores.redis, stores.keys)
        self._jobs = Jobs(stores.redis, stores.keys)
        self._substitutes = Substitutes(stores.redis, stores.keys)

    async def plan(self, report: Report) -> list[RepairStep]:
        """The steps for everything that is damaged and needed now, in the order of the findings."""
        return [await self._step(finding) for finding in report.findings if finding.current]

    async def do(self, steps: Sequence[RepairStep], wait_s: float) -> list[RepairStep]:
        """Does the steps, and returns them with what came of them. Waits `wait_s` seconds at most for segments to be
        rewritten.
        """
        others = [await self._do(step) for step in steps if step.remedy is not Remedy.REWRITE]
        return [*await self._rewrite([step for step in steps if step.remedy is Remedy.REWRITE], wait_s), *others]

    async def _rewrite(self, steps: Sequence[RepairStep], wait_s: float) -> list[RepairStep]:
        """Has the damaged segments rewritten for one shard after the other of those that name each: a compaction clears
        what it has replaced in its own shard, and would not look for it in another one then.
        """
        until_s = self._clock.monotonic() + wait_s
        waiting = {step.finding.name: list(step.finding.shards) for step in steps}
        while any(waiting.values()) and self._clock.monotonic() < until_s:
            for step in steps:
                shards = waiting[step.finding.name]
                if shards:
                    await self._queue(step.finding, *shards.pop(0))
            while await self._damages.names() & waiting.keys() and self._clock.monotonic() < until_s:
                await self._clock.sleep(POLL_S)
        left = await self._damages.names()
        return [
            msgspec.structs.replace(step, done=step.finding.name not in left, outcome=outcome)
            for step in steps
            for outcome in ["is queued" if step.finding.name in left else "was rewritten"]
        ]

    async def _step(self, finding: Finding) -> RepairStep:
        if await self._copy_of(finding) is not None:
            return RepairStep(finding, Remedy.COPY)
        match finding.kind:
            case DamageKind.DERIVED:
                return RepairStep(finding, Remedy.REWRITE)
            case DamageKind.RECORDS:
                return RepairStep(finding, Remedy.REWRITE, f"{lost_with(finding)}, unless a compactor has a whole copy")
            case DamageKind.ENTRY if await self._copy_of_entry(finding) is not None:
                return RepairStep(finding, Remedy.COPY_ENTRY)
            case DamageKind.ENTRY if finding.name.rpartition("/")[0].endswith("/log"):
                return RepairStep(finding, Remedy.SKIP_ENTRY if self._skip else Remedy.NOTHING, lost_with(finding))
            case DamageKind.SNAPSHOT | DamageKind.JOURNAL:
                return RepairStep(finding, Remedy.SNAPSHOT)
            case DamageKind.STATE | DamageKind.OTHER if finding.what == "is missing":
                return RepairStep(finding, Remedy.WAIT)
        return RepairStep(finding, Remedy.NOTHING, lost_with(finding))

    async def _do(self, step: RepairStep) -> RepairStep:
        finding = step.finding
        try:
            outcome = await self._carry_out(step)
        except (Corrupt, Gone) as error:
            return msgspec.structs.replace(step, outcome=error.message)
        if outcome is None:
            return step
        if step.remedy in (Remedy.COPY, Remedy.COPY_ENTRY, Remedy.SKIP_ENTRY):
            await self._damages.clear([finding.name])
        return msgspec.structs.replace(step, done=True, outcome=outcome)

    async def _carry_out(self, step: RepairStep) -> str | None:
        """Does a step. What came of it; None when there was nothing to do. Raises Corrupt, Gone."""
        finding = step.finding
        match step.remedy:
            case Remedy.COPY:
                return await self._put_back(finding)
            case Remedy.COPY_ENTRY:
                copy = await self._copy_of_entry(finding)
                if copy is None or finding.shard is None:
                    raise Corrupt("the copy is gone")
                put = await self._substitutes.put_back(finding.collection, finding.shard, copy)
                return "put back" if put else "was trimmed, or is whole by now"
            case Remedy.SKIP_ENTRY if finding.shard is not None:
                skipped = await self._substitutes.skip(finding.collection, finding.shard, _entry_id(finding))
                if skipped is None:
                    return "was trimmed, or is whole by now"
                return f"skipped: operations are lost among positions {skipped.first} to {skipped.end - 1}"
            case Remedy.SNAPSHOT:
                await Changes(self._stores.redis, self._stores.keys).count()
                return "asked for"
        return None

    async def _queue(self, finding: Finding, collection: str, shard: int) -> None:
        doing, now_s = "the segment is to be rewritten", self._clock.now()
        damage = Damage(finding.name, finding.kind, finding.what, doing, ASKED_BY, now_s, collection, shard)
        await self._damages.report(damage)
        await self._jobs.put(collection, shard, PRIORITY)

    # ---- copies of objects

    async def _copy_of(self, finding: Finding) -> str | None:
        """The key of a copy of the object, proven to be what was written; None when there is none."""
        copies = self._stores.copies
        if copies is None:
            return None
        path = self._scratch / "copy"
        for key in (finding.name, f"{FILES}{finding.name}"):
            try:
                await copies.download(key, path)
            except ObjectNotFound:
                continue
            if await asyncio.to_thread(_is_what_was_written, finding, path):
                return key
        return None

    async def _put_back(self, finding: Finding) -> str:
        """Puts the copy, which is in scratch and proven, in the object's place. Raises Corrupt."""
        key = await self._copy_of(finding)
        if key is None:
            raise Corrupt("the copy is gone")
        await self._stores.objects.put(finding.name, self._scratch / "copy")
        return "put back"

    # ---- copies of entries

    async def _copy_of_entry(self, finding: Finding) -> Entry | None:
        """The entry as it was written, when its fields are whole and a backup has its payload; else None."""
        copies, shard = self._stores.copies, finding.shard
        if copies is None or shard is None:
            return None
        fields = await self._fields_of(finding, shard)
        if fields is None:
            return None
        async for info in copies.list(f"{LOG}{finding.collection}/"):
            try:
                page = decode_page(await copies.get(info.key), info.key)
            except Corrupt:  # another page may have it
                continue
            for entry in page:
                if payload_checksum(entry.payload) == fields.checksum:
                    return dataclasses.replace(fields, payload=entry.payload)
        return None

    async def _fields_of(self, finding: Finding, shard: int) -> Entry | None:
        """The damaged entry, when nothing but its payload is damaged."""
        key, id_ = self._stores.keys.log(finding.collection, shard), _entry_id(finding)
        found = await retry_idempotent(lambda: command(self._stores.redis, "XRANGE", key, id_, id_), writes=False)
        for raw_id, pairs in found:
            raw: RawEntry = (raw_id, [part for pair in pairs.items() for part in pair])
            try:
                return verified_entry(finding.collection, shard, raw)
            except DamagedEntry as damage:
                return damage.fields
        return None


def _is_what_was_written(finding: Finding, path: Path) -> bool:
    """Whether the file has the bytes of the object that was found damaged: by the checksum that is known of it, or, of
    what carries its own, by that.
    """
    if finding.checksum:
        return checksum(path) == finding.checksum
    try:
        match finding.kind:
            case DamageKind.ROOT:
                decode_root(path.read_bytes(), finding.name)
            case DamageKind.JOURNAL:
                decode_entry(finding.name, path.read_bytes())
            case DamageKind.SNAPSHOT:
                check_snapshot(path.read_bytes())
            case DamageKind.SEALED:
                sealed = parse_log_key(finding.name)
                if sealed is None:
                    return False
                decode_sealed(sealed, path.read_bytes())
            case _:
                return False
    except Corrupt:
        return False
    return True


def _entry_id(finding: Finding) -> str:
    return finding.name.rpartition("/")[2]


def lost_with(finding: Finding) -> str:
    """The loss that comes with what is damaged, for people."""
    if finding.positions is not None:
        first, end = finding.positions
        return f"operations among the positions {first} to {'the next entry' if end is None else end - 1}"
    if finding.lost_rows:
        named = f": {', '.join(finding.lost_ids)}" if finding.lost_ids else ""
        more = " .." if finding.lost_ids and finding.lost_rows > len(finding.lost_ids) else ""
        return f"{finding.lost_rows} records{named}{more}"
    if finding.kind is DamageKind.ROOT:
        return "nothing now; should Redis be lost before the next round, what the root before this one does not cover"
    if finding.kind is DamageKind.SEALED:
        return "reads of the past that need it; should Redis be lost, what only this has"
    return f"reads of {finding.collection} are refused" if finding.collection else ""
