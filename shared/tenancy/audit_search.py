"""Searching audit logs: which entries are wanted, and which objects may have them."""

from __future__ import annotations

import datetime
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from typing import Final

from shared.objects.keys import AUDIT_DAYS, AuditPart, audit_day_prefix, parse_audit_key
from shared.objects.port import ObjectStore
from shared.tenancy.audit import AuditOutcome, Entry, Event, Gap, day_of, moment_of
from shared.tenancy.audit_chain import entries_of

_DAY: Final = datetime.timedelta(days=1)


@dataclass(frozen=True, slots=True)
class AuditQuery:
    """The entries that are wanted: all that is given has to hold. `tenant`: what is done to it, or by those who are
    bound to it; `own`: only what this tenant's own may see. `actor` is an id or a kind, `action` the name of an action
    or the part of it before or behind the colon. `since` (inclusive) and `until` (exclusive) are moments.
    """

    tenant: str | None = None
    own: str | None = None
    actor: str | None = None
    action: str | None = None
    outcome: AuditOutcome | None = None
    since: str | None = None
    until: str | None = None

    def wants(self, entry: Entry) -> bool:
        """Whether the entry is wanted. Gaps are, but by tenants: nobody knows what was in them."""
        if (self.since is not None and entry.time < self.since) or (
            self.until is not None and entry.time >= self.until
        ):
            return False
        if isinstance(entry, Gap):
            return self.own is None
        return self._wants(entry)

    def _wants(self, event: Event) -> bool:
        return (
            (self.own is None or event.concerns(self.own))
            and (self.tenant is None or self.tenant in (event.tenant, event.actor.tenant))
            and (self.actor is None or self.actor in (event.actor.id, event.actor.key, event.actor.kind))
            and (self.outcome is None or event.outcome is self.outcome)
            and (self.action is None or any(_is_named(action, self.action) for action in event.actions))
        )

    def found_in(self, data: bytes) -> list[Entry]:
        """The entries of a part that are wanted."""
        return [entry for entry in entries_of(data) if self.wants(entry)]


def _is_named(action: str, name: str) -> bool:
    return name == action or name in action.split(":", 1)


async def parts_between(
    objects: ObjectStore, since: str | None, until: str | None, after: str = ""
) -> AsyncIterator[AuditPart]:
    """The parts that may have entries of [since, until), in the order of their keys, those up to the key `after` left
    out. Entries of a day lie in parts of that day. Raises Unavailable.
    """
    if since is None:
        prefixes: Iterator[str] = iter([AUDIT_DAYS])
    else:
        prefixes = map(audit_day_prefix, _days(day_of(since), day_of(until or moment_of(_now_s()))))
    last = None if until is None else day_of(until)
    for prefix in prefixes:
        if prefix < after and not after.startswith(prefix):
            continue
        async for info in objects.list(prefix):
            part = parse_audit_key(info.key)
            if part is not None and info.key > after and (last is None or part.day <= last):
                yield part


def _now_s() -> float:
    return datetime.datetime.now(datetime.UTC).timestamp()


def _days(first: str, last: str) -> Iterator[str]:
    """The days from the first to the last, and one more: clocks differ."""
    day, end = datetime.date.fromisoformat(first), datetime.date.fromisoformat(last) + _DAY
    while day <= end:
        yield day.isoformat()
        day += _DAY
