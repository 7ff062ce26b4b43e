"""The losses that `polychrome status` shows: the log service's report of the last one (`pc:{catalog}:report`), and the
log entries that an operator had skipped.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, datetime
from typing import Any, Final, NamedTuple

import msgspec

from shared.log.substitutes import Skipped

LINES_MAX: Final = 20
"""Most lines of a kind for people; `--json` has all."""
FROM_LOG: Final = "log"
"""`taken` of a collection whose log in Redis goes on."""


class Lost(msgspec.Struct, frozen=True):
    """Positions [first, end) of a collection that the last loss of Redis cost, as far as it was witnessed;
    `acknowledged` where clients had been told that they are stored.
    """

    collection: str
    first: int
    end: int
    acknowledged: bool


class Missing(msgspec.Struct, frozen=True):
    """The possible loss of a collection, as the log service reports it (`MissingRange`): everything of shard number i
    of its layout is there below the position `covered[i]`, and what was written from there on, below `head`, may be
    gone. Positions below `seen` were handed out.
    """

    collection: str
    name: str
    covered: list[int]
    seen: int
    head: int
    taken: str
    one_moment: bool = True
    damaged: dict[str, str] = {}

    @property
    def begins(self) -> int:
        """The first position at which something may be missing."""
        return min(self.covered, default=0)

    @property
    def counts(self) -> bool:
        """Whether anything may be missing: nothing is where the log in Redis goes on and reaches as far as was seen."""
        return self.taken != FROM_LOG or self.begins < self.seen or bool(self.damaged)


class RestoredState(msgspec.Struct, frozen=True):
    """The state of a collection that Redis had lost alone, or of which these `fields` were missing or could not be
    read, and that was restored at the time `at_s`, in seconds since the epoch.
    """

    collection: str
    name: str
    fields: list[str]
    at_s: float


class RestoredRow(msgspec.Struct, frozen=True):
    """A row of the catalog that Redis had lost alone, `what` for people, and that was restored at the time `at_s`, in
    seconds since the epoch.
    """

    what: str
    at_s: float


class LossReport(msgspec.Struct, frozen=True):
    """The log service's last report. `unlisted` are the collections that the bucket has and no catalog lists."""

    at_s: float = 0.0
    lost: list[Lost] = []
    missing: list[Missing] = []
    unlisted: list[str] = []
    damaged_journal: list[str] = []
    damaged_snapshots: list[str] = []
    restored_states: list[RestoredState] = []
    restored_rows: list[RestoredRow] = []


class SkippedEntry(NamedTuple):
    """An entry of a shard's log that an operator had skipped."""

    collection: str
    shard: int
    skipped: Skipped


_REPORT: Final = msgspec.json.Decoder(LossReport)


def decode_report(text: bytes | None) -> LossReport:
    """The report as it is kept; an empty one before the first loss. One that cannot be read says so."""
    try:
        return _REPORT.decode(text) if text else LossReport()
    except msgspec.DecodeError:
        return LossReport(damaged_journal=["the report itself"])


def lines_of(report: LossReport, skipped: Sequence[SkippedEntry]) -> list[str]:
    """The lines for people."""
    when = f"(at the restart of {time_of(report.at_s)})"
    damaged = [*report.damaged_journal, *report.damaged_snapshots]
    return [
        *_some("lost", report.lost, lambda lost: f"{_lost(lost)} {when}"),
        *_some("missing", [each for each in report.missing if each.counts], lambda each: f"{_missing(each)} {when}"),
        *_some("unlisted", report.unlisted, lambda each: f"{each}  the bucket has it, and no catalog lists it {when}"),
        *_some("unread", damaged, lambda each: f"{each}  was damaged, and passed over {when}"),
        *_some("restored", report.restored_states, _restored),
        *_some(
            "restored", report.restored_rows, lambda row: f"{row.what}, which Redis had lost (at {time_of(row.at_s)})"
        ),
        *_some("skipped", skipped, _skipped),
    ]


def json_of(report: LossReport, skipped: Sequence[SkippedEntry]) -> dict[str, Any]:
    """The members of the JSON object: `lost`, `missing`, `unlisted`, `unread`, `restored`, `restored_rows` and
    `skipped`.
    """
    return {
        "reported_s": report.at_s,
        "lost": report.lost,
        "missing": [each for each in report.missing if each.counts],
        "unlisted": report.unlisted,
        "unread": [*report.damaged_journal, *report.damaged_snapshots],
        "restored": report.restored_states,
        "restored_rows": report.restored_rows,
        "skipped": [
            {"collection": each.collection, "shard": each.shard, **msgspec.structs.asdict(each.skipped)}
            for each in skipped
        ],
    }


def time_of(seconds: float) -> str:
    """A time in seconds since the epoch, for people."""
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _some(kind: str, found: Sequence[Any], line: Callable[[Any], str]) -> Iterable[str]:
    yield from (f"{kind}  {line(each)}" for each in found[:LINES_MAX])
    if len(found) > LINES_MAX:
        yield f"{kind}  and {len(found) - LINES_MAX} more: --json shows all"


def _lost(lost: Lost) -> str:
    return f"{lost.collection}  positions {lost.first} to {lost.end - 1}{', acknowledged' if lost.acknowledged else ''}"


def _missing(missing: Missing) -> str:
    damaged = f"; damaged: {', '.join(missing.damaged)}" if missing.damaged else ""
    moment = "" if missing.one_moment else ", its shards of different moments"
    written = f"; positions below {missing.seen} were handed out" if missing.seen > missing.begins else ""
    return (
        f"{missing.collection}  {missing.name}: what was written from position {missing.begins} on may be missing, "
        f"restored from its {missing.taken}{moment}{written}{damaged}"
    )


def _restored(restored: RestoredState) -> str:
    cause = f"{', '.join(restored.fields)} were lost" if restored.fields else "a part of it was lost"
    return f"{restored.collection}  {restored.name}: its state in Redis, of which {cause} (at {time_of(restored.at_s)})"


def _skipped(each: SkippedEntry) -> str:
    skipped = each.skipped
    return (
        f"{each.collection}/{each.shard}  entry {skipped.entry}, among the positions {skipped.first} to "
        f"{skipped.end - 1}, by an operator (at {time_of(skipped.at_s)})"
    )
