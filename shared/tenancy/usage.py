"""Usage: what each tenant used in each hour. Pure.

A *source* is a run of a process that counts. For each hour and each *subject*, a tenant or a collection, it has totals
that only grow, and what it passes on are always these totals, never differences. So the usage of an hour is the same
whatever is repeated, comes late or in another order: of one source and subject the greatest totals count (`merged`),
and the sources are added up (`by_tenant`).

Records that were written are counted by the append script, in the state of their collection, in the step in which it
appends them (`written`, `written_before`). The log service reads those totals. Their subjects are collections, and a
leader that follows another one reads the same ones, so of these all leaders are one source.
"""

from __future__ import annotations

import enum
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Final, NamedTuple

import msgspec

HOUR_S: Final = 3600
SUBJECTS_MAX: Final = 20_000
"""Subjects that a source counts in an hour; the others are counted together, for nobody."""
HOURS_MAX: Final = 72
"""Hours that a source keeps while they cannot be passed on; the oldest ones are given up then."""
LOG_SOURCE: Final = "log/"
"""How the names of sources begin that read the totals of what was written."""


class Measure(enum.StrEnum):
    """Kinds of amounts that are counted. Times are in milliseconds; stored amounts count in seconds times records or
    bytes.
    """

    REQUESTS_READ = "requests_read"
    REQUESTS_WRITE = "requests_write"
    REQUESTS_CATALOG_READ = "requests_catalog_read"
    REQUESTS_CATALOG_WRITE = "requests_catalog_write"
    REQUESTS_CONTROL = "requests_control"
    RECORDS_WRITTEN = "records_written"
    BYTES_WRITTEN = "bytes_written"
    QUERIES = "queries"
    ROWS_SCANNED = "rows_scanned"
    BYTES_SCANNED = "bytes_scanned"
    BYTES_RETURNED = "bytes_returned"
    EMBEDDING_TOKENS = "embedding_tokens"
    COMPACTION_MS = "compaction_ms"
    STORED_RECORD_S = "stored_record_s"
    STORED_BYTE_S = "stored_byte_s"


MEASURES: Final = tuple(measure.value for measure in Measure)

Used = Mapping[str, int]
"""Amounts by measure; what is 0 may be missing."""


class Subject(NamedTuple):
    """For whom something is counted: a tenant; or a collection, whose tenant is empty where the counter does not know
    it. Both empty: nobody.
    """

    tenant: str
    collection: str = ""


NOBODY: Final = Subject("")


class UsageEntry(msgspec.Struct, frozen=True, array_like=True):
    """The totals of one source for one subject in one hour."""

    source: str
    tenant: str
    collection: str
    used: dict[str, int]


def hour_of(seconds: float) -> int:
    """The hour of a time in seconds since the epoch, counted from the epoch."""
    return int(seconds // HOUR_S)


def shown_hour(hour: int) -> str:
    """The hour as in keys of objects: `2026-12-01T02`, UTC."""
    return datetime.fromtimestamp(hour * HOUR_S, UTC).strftime("%Y-%m-%dT%H")


def parse_hour(text: str) -> int:
    """The hour that `shown_hour` shows so. Raises ValueError."""
    return hour_of(datetime.strptime(text, "%Y-%m-%dT%H").replace(tzinfo=UTC).timestamp())


class UsageTotals:
    """The totals of one source, and which of them have still to be passed on. For one thread."""

    def __init__(self, subjects_max: int = SUBJECTS_MAX) -> None:
        self._subjects_max = subjects_max
        self._totals: dict[int, dict[Subject, dict[str, int]]] = {}
        self._changed: dict[int, set[Subject]] = {}

    def add(self, hour: int, subject: Subject, used: Used) -> None:
        """Counts more for a subject."""
        totals = self._of(hour, subject)
        for measure, amount in used.items():
            if amount:
                totals[measure] = totals.get(measure, 0) + amount

    def raise_to(self, hour: int, subject: Subject, used: Used) -> None:
        """Sets totals that are known as a whole, unless they are there already."""
        known = self._totals.get(hour, {}).get(subject, {})
        if any(amount > known.get(measure, 0) for measure, amount in used.items()):
            totals = self._of(hour, subject)
            for measure, amount in used.items():
                totals[measure] = max(amount, totals.get(measure, 0))

    def _of(self, hour: int, subject: Subject) -> dict[str, int]:
        subjects = self._totals.setdefault(hour, {})
        if subject not in subjects and len(subjects) >= self._subjects_max:
            subject = NOBODY
        self._changed.setdefault(hour, set()).add(subject)
        return subjects.setdefault(subject, {})

    @property
    def hours_changed(self) -> list[int]:
        """The hours with totals to be passed on, the oldest first."""
        return sorted(hour for hour, changed in self._changed.items() if changed)

    def take(self, hour: int, limit: int) -> dict[Subject, dict[str, int]]:
        """Totals of the hour to be passed on, of so many subjects at most; they count as passed on from now."""
        changed = self._changed.get(hour, set())
        taken = [changed.pop() for _ in range(min(limit, len(changed)))]
        return {subject: dict(self._totals[hour][subject]) for subject in taken}

    def put_back(self, hour: int, subjects: Iterable[Subject]) -> None:
        """These totals have still to be passed on."""
        self._changed.setdefault(hour, set()).update(subjects)

    def put_back_all(self, hour: int) -> None:
        """All totals of the hour have to be passed on again: what they were passed on to has lost them."""
        self.put_back(hour, self._totals.get(hour, {}))

    def forget_before(self, hour: int) -> list[int]:
        """Forgets totals of earlier hours that were passed on; and of more than HOURS_MAX hours the oldest in any
        case, whose numbers it returns.
        """
        for old in [each for each in self._totals if each < hour and not self._changed.get(each)]:
            self._forget(old)
        given_up = sorted(self._totals)[: max(0, len(self._totals) - HOURS_MAX)]
        for old in given_up:
            self._forget(old)
        return given_up

    def _forget(self, hour: int) -> None:
        self._totals.pop(hour, None)
        self._changed.pop(hour, None)


def merged(entries: Iterable[UsageEntry]) -> list[UsageEntry]:
    """The entries of one hour, in order, without those that others of the same source and subject contain."""
    found: dict[tuple[str, str, str], UsageEntry] = {}
    for entry in entries:
        of_log = entry.source.startswith(LOG_SOURCE) and entry.collection
        source = LOG_SOURCE if of_log else entry.source
        key = (source, entry.collection, "" if entry.collection else entry.tenant)
        before = found.get(key)
        found[key] = msgspec.structs.replace(entry, source=source) if before is None else _greatest(before, entry)
    return [found[key] for key in sorted(found)]


def _greatest(one: UsageEntry, other: UsageEntry) -> UsageEntry:
    used = {name: max(one.used.get(name, 0), other.used.get(name, 0)) for name in sorted({*one.used, *other.used})}
    return UsageEntry(one.source, one.tenant or other.tenant, one.collection, used)


def by_tenant(entries: Sequence[UsageEntry]) -> dict[str, dict[str, int]]:
    """The amounts that each tenant used, from merged entries; under the empty name those of nobody that is known. An
    entry of a collection without a tenant is that of the tenant that another entry of the collection names.
    """
    owners = {entry.collection: entry.tenant for entry in entries if entry.collection and entry.tenant}
    found: dict[str, dict[str, int]] = {}
    for entry in entries:
        totals = found.setdefault(entry.tenant or owners.get(entry.collection, ""), {})
        for measure, amount in entry.used.items():
            totals[measure] = totals.get(measure, 0) + amount
    return found


def parse_written(text: bytes | None) -> Iterator[tuple[int, dict[str, int]]]:
    """The hour, and what was written in it, from the field `written` or `written_before` of a collection's state;
    nothing where there is none or it cannot be read.
    """
    parts = (text or b"").split(b" ")
    if len(parts) == 3 and all(part.isdigit() for part in parts):
        hour, records, size = map(int, parts)
        yield hour, {Measure.RECORDS_WRITTEN.value: records, Measure.BYTES_WRITTEN.value: size}
