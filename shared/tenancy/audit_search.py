"""Searching audit logs: which entries are wanted, and which objects may have them."""

from __future__ import annotations

import datetime
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Final

from shared.objects.keys import AUDIT_DAYS, AuditPart, audit_day_prefix, parse_audit_key
from shared.objects.port import ObjectStore
from shared.tenancy.audit import AuditOutcome, Entry, Event, Gap, day_of, moment_of
from shared.tenancy.audit_chain import entries_of

DAYS_MAX: Final = 100
"""Days that are listed one by one; of more, the whole log is."""
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
    objects: ObjectStore, since: str | None, until: str | None, start: str = ""
) -> AsyncIterator[AuditPart]:
    """The parts that may have entries of [since, until), in the order of their keys, from the key `start` on. Entries
    of a day lie in parts of that day. Raises Unavailable.
    """
    now = moment_of(datetime.datetime.now(datetime.UTC).timestamp())
    first, last = day_of(since or ""), day_of(until or now)
    days = _days(first, last) if first else None
    for prefix in [AUDIT_DAYS] if days is None else map(audit_day_prefix, days):
        if prefix < start and not start.startswith(prefix):
            continue
        async for info in objects.list(prefix):
            part = parse_audit_key(info.key)
            if part is not None and info.key >= start and part.day >= first and (until is None or part.day <= last):
                yield part


def _days(first: str, last: str) -> list[str] | None:
    """The days from the first to the last, and one more: clocks differ. None when there are too many of them."""
    day, number = datetime.date.fromisoformat(first), datetime.date.fromisoformat(last).toordinal() + 2
    number -= day.toordinal()
    return None if number > DAYS_MAX or last >= "9999" else [(day + each * _DAY).isoformat() for each in range(number)]
