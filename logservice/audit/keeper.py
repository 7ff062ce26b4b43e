"""The keeper of audit logs: writes down where each chain ends, and deletes what is older than it is to be kept.

A round:

1. The newest heads are read (`shared.tenancy.audit_heads`). What this process wrote itself counts as well: heads that
   were taken away or replaced are said in the log, and written anew behind them, so that the proof shows it.
2. The parts of the days since the last round are listed; of each chain that has gone on, the newest part is read.
3. If parts are too old, the heads say from which part on, and behind which hash, each chain has to be there, and from
   which day on parts are kept at all. A chain that is too old as a whole is left out: a process that lives writes a
   part a day.
4. If anything has changed, the next heads are created. Of two log services one is first, and the other begins anew.
5. The old parts are deleted, and all but the newest heads.

What a crash leaves behind are parts of days that are not kept any more; the next round deletes them.
"""

from __future__ import annotations

import datetime
import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final

import msgspec
from prometheus_client import Counter, Gauge

from shared.errors import Corrupt, Unavailable
from shared.objects.keys import (
    AUDIT_DAYS,
    AUDIT_HEADS,
    AuditPart,
    audit_day_prefix,
    audit_heads_key,
    parse_audit_heads_key,
    parse_audit_key,
)
from shared.objects.port import ObjectNotFound, ObjectStore
from shared.process.clock import Clock
from shared.process.telemetry import get_logger
from shared.tenancy.audit import day_of, moment_of
from shared.tenancy.audit_chain import NOTHING, CheckedPart, check_part
from shared.tenancy.audit_heads import HEADS_KEPT, Head, Heads, decode_heads

EXPIRED_AT_ONCE: Final = 20_000
"""Parts that one round deletes at most."""
DELETED_PER_CALL: Final = 1000
DAYS_MAX: Final = 100
"""Days that are listed one by one."""
_DAY: Final = datetime.timedelta(days=1)

CHAINS: Final = Gauge("polychrome_logservice_audit_chains", "Chains of audit logs in the bucket.")
DELETED: Final = Counter("polychrome_logservice_audit_deleted_total", "Parts of audit logs that were too old.")

log = get_logger(__name__)


@dataclass(slots=True)
class _Known:
    """The newest heads as far as they are known: their number, the SHA-256 of their bytes, and what they say."""

    number: int = 0
    sha256: str = ""
    heads: dict[str, Head] = field(default_factory=dict)
    kept_since: str = ""
    time: str = ""


class AuditKeeper:
    """Keeps the heads of one cluster. `retention_days`: how long parts are kept, 0 for ever; `writer` names the
    process.
    """

    def __init__(self, objects: ObjectStore, clock: Clock, writer: str, retention_days: int) -> None:
        self._objects = objects
        self._clock = clock
        self._writer = writer
        self._retention_days = retention_days
        self._own = _Known()
        self._tampered = False
        self._listed_since = ""

    async def step(self) -> None:
        """A round. Raises Unavailable."""
        numbers = [
            number async for info in self._objects.list(AUDIT_HEADS)
            if (number := parse_audit_heads_key(info.key)) is not None
        ]  # fmt: skip
        known = await self._read(numbers)
        today = day_of(moment_of(self._clock.now()))
        heads = dict(known.heads)
        for part in (await self._newest_parts(known, today)).values():
            await self._see(part, heads)
        expired, kept_since = await self._expired(known, today)
        await self._cut(expired, heads)
        changed = self._tampered or heads != known.heads or kept_since != known.kept_since
        if changed and not await self._write(known, numbers, heads, kept_since):
            return
        self._listed_since = today
        CHAINS.set(len(heads))
        await self._delete([part.key for part in expired])
        DELETED.inc(len(expired))
        await self._delete([audit_heads_key(number) for number in numbers if number <= self._own.number - HEADS_KEPT])

    # The heads that there are

    async def _read(self, numbers: list[int]) -> _Known:
        """The newest heads, and what this process knows beyond them."""
        newest = numbers[-1] if numbers else 0
        self._tampered = newest < self._own.number
        if self._tampered:
            log.error("audit_heads_missing", newest=newest, written=self._own.number)
            return self._own
        if not newest:
            return self._own
        key = audit_heads_key(newest)
        try:
            data = await self._objects.get(key)
        except ObjectNotFound as error:
            raise Unavailable(f"{key} was there a moment ago") from error
        sha256 = hashlib.sha256(data).hexdigest()
        if newest == self._own.number:
            self._tampered = sha256 != self._own.sha256
            if self._tampered:
                log.error("audit_heads_replaced", object=key)
            return self._own
        try:
            found = decode_heads(data, key)
        except Corrupt as error:
            log.exception("audit_heads_damaged", object=key, message=error.message)
            return _Known(newest, sha256, self._own.heads, self._own.kept_since, self._own.time)
        heads = merged(self._own.heads, found.heads)
        return _Known(newest, sha256, heads, max(found.kept_since, self._own.kept_since), found.time)

    # The parts that there are

    async def _newest_parts(self, known: _Known, today: str) -> dict[str, AuditPart]:
        """The newest part of each chain that has some of the days since the last round."""
        days = days_since(self._listed_since or day_of(known.time), today)
        prefixes = [AUDIT_DAYS] if days is None else map(audit_day_prefix, days)
        newest: dict[str, AuditPart] = {}
        for prefix in prefixes:
            async for info in self._objects.list(prefix):
                part = parse_audit_key(info.key)
                if part is not None and part.day >= known.kept_since:
                    other = newest.get(part.chain)
                    newest[part.chain] = part if other is None or part.number > other.number else other
        return newest

    async def _see(self, part: AuditPart, heads: dict[str, Head]) -> None:
        """Notes the end of a chain, if it is a new one."""
        head = heads.get(part.chain)
        if head is not None and part.number <= head.last:
            return
        found = await self._checked(part)
        if found is None:
            return
        head = head or Head(last=0, sha256=NOTHING, day=part.day, closed=False)
        heads[part.chain] = msgspec.structs.replace(
            head, last=part.number, sha256=found.sha256, day=part.day, closed=found.closed
        )

    async def _checked(self, part: AuditPart) -> CheckedPart | None:
        """The part; None when it is gone. What is wrong with it, `polychrome audit verify` says as well."""
        try:
            found = check_part(part, await self._objects.get(part.key))
        except ObjectNotFound:
            return None
        if found.flaws:
            log.error("audit_part_damaged", object=part.key, flaws=found.flaws)
        return found

    # What is too old

    async def _expired(self, known: _Known, today: str) -> tuple[list[AuditPart], str]:
        """The parts that are to be deleted, of each chain the oldest ones, and the day from which on parts are kept."""
        if not self._retention_days:
            return [], known.kept_since
        kept = datetime.date.fromisoformat(today) - self._retention_days * _DAY
        kept_since = max(kept.isoformat(), known.kept_since)
        expired: list[AuditPart] = []
        async for info in self._objects.list(AUDIT_DAYS):
            part = parse_audit_key(info.key)
            if part is None:
                continue
            if part.day >= kept_since:
                break
            if len(expired) >= EXPIRED_AT_ONCE:
                kept_since = max(part.day, known.kept_since)
                break
            expired.append(part)
        return expired, kept_since if expired else known.kept_since

    async def _cut(self, expired: Iterable[AuditPart], heads: dict[str, Head]) -> None:
        """Notes where chains begin once these parts are deleted."""
        last: dict[str, AuditPart] = {}
        for part in expired:
            last[part.chain] = part if part.chain not in last else max(part, last[part.chain], key=lambda it: it.number)
        for chain, part in last.items():
            head = heads.get(chain)
            if head is None or part.number < head.first:
                continue
            if part.number >= head.last:
                del heads[chain]
                continue
            found = await self._checked(part)
            if found is not None:
                heads[chain] = msgspec.structs.replace(head, first=part.number + 1, before=found.sha256)

    # What is written and deleted

    async def _write(self, known: _Known, numbers: list[int], heads: Mapping[str, Head], kept_since: str) -> bool:
        """Creates the next heads; whether no other log service was faster."""
        number = known.number + 1
        time = moment_of(self._clock.now())
        following = Heads(
            number=number,
            oldest=max(number - HEADS_KEPT + 1, min(numbers, default=number)),
            follows=known.sha256,
            time=time,
            writer=self._writer,
            kept_since=kept_since,
            heads=dict(sorted(heads.items())),
        )
        data = following.encode()
        if not await self._objects.create(following.key, data):
            return False
        self._own = _Known(number, hashlib.sha256(data).hexdigest(), dict(heads), kept_since, time)
        log.info("audit_heads_written", object=following.key, sha256=self._own.sha256)
        return True

    async def _delete(self, keys: list[str]) -> None:
        for start in range(0, len(keys), DELETED_PER_CALL):
            await self._objects.delete(keys[start : start + DELETED_PER_CALL])


def merged(own: Mapping[str, Head], found: Mapping[str, Head]) -> dict[str, Head]:
    """The heads of the chains in `found`, or those of `own` where it has seen more of a chain."""
    return {
        chain: own[chain] if chain in own and (own[chain].last, own[chain].first) > (head.last, head.first) else head
        for chain, head in found.items()
    }


def days_since(day: str, today: str) -> list[str] | None:
    """The days from the one before `day` to tomorrow, by another clock: at least those from yesterday on. None when
    `day` is none, or so long ago that it is better to list everything.
    """
    now = datetime.date.fromisoformat(today)
    try:
        number = (now - datetime.date.fromisoformat(day)).days
    except ValueError:
        return None
    return None if number > DAYS_MAX else [(now + each * _DAY).isoformat() for each in range(-max(number, 0) - 1, 2)]
