"""Settings of a log service process, read from its environment. They are listed in docs/operations.md."""

from __future__ import annotations

from dataclasses import dataclass

from logservice.garbage.plan import Periods
from logservice.scheduling.policy import Policy
from shared.process.config import ProcessConfig, parse_positive, parse_seconds, setting


def _parse_lease(text: str) -> float:
    value = parse_seconds(text)
    if value < 1:
        raise ValueError("expected at least 1 second")
    return value


def _parse_retention_days(text: str) -> int:
    days = 0 if text.strip() == "0" else parse_positive(text)
    if days == 1:
        raise ValueError("expected 0, or at least 2 days")
    return days


@dataclass(frozen=True)
class LogserviceConfig(ProcessConfig):
    """Settings of one log service. Of several, one leads and the others stand by."""

    lease_s: float = setting(
        "POLYCHROME_LOGSERVICE_LEASE_S",
        "How long a dead log service keeps its lease; a standby takes over after that.",
        default=5.0,
        parse=_parse_lease,
    )
    witness_wait_s: float = setting(
        "POLYCHROME_LOGSERVICE_WITNESS_WAIT_S",
        "After a restart of Redis, how long to wait for frontends and query workers that were there before it to say "
        "what they saw last. Those that are there say so within a fraction of a second.",
        default=3.0,
        parse=parse_seconds,
    )
    tick_s: float = setting(
        "POLYCHROME_LOGSERVICE_TICK_S",
        "Pause between two looks at the shards that were written.",
        default=0.2,
        parse=parse_seconds,
    )
    compact_ops: int = setting(
        "POLYCHROME_LOGSERVICE_COMPACT_OPS",
        "Operations in a shard's log that make it due for compaction at once.",
        default=8192,
        parse=parse_positive,
    )
    compact_bytes: int = setting(
        "POLYCHROME_LOGSERVICE_COMPACT_BYTES",
        "Bytes in a shard's log that make it due for compaction at once.",
        default=64 * 1024**2,
        parse=parse_positive,
    )
    compact_quiet_s: float = setting(
        "POLYCHROME_LOGSERVICE_COMPACT_QUIET_S",
        "A shard that was written and then left alone for so long is due for compaction.",
        default=0.6,
        parse=parse_seconds,
    )
    compact_age_s: float = setting(
        "POLYCHROME_LOGSERVICE_COMPACT_AGE_S",
        "A shard whose oldest uncompacted write is so old is due for compaction, quiet or not.",
        default=10.0,
        parse=parse_seconds,
    )
    sweep_s: float = setting(
        "POLYCHROME_LOGSERVICE_SWEEP_S",
        "Pause between two looks at all collections, for writes and deletions whose process died.",
        default=30.0,
        parse=parse_seconds,
    )
    snapshot_s: float = setting(
        "POLYCHROME_LOGSERVICE_SNAPSHOT_S",
        "Pause between looks whether the catalog has changed and needs a new snapshot in the bucket.",
        default=1.0,
        parse=parse_seconds,
    )
    snapshots_kept: int = setting(
        "POLYCHROME_LOGSERVICE_SNAPSHOTS_KEPT",
        "Catalog snapshots that stay in the bucket.",
        default=10,
        parse=parse_positive,
    )

    garbage_s: float = setting(
        "POLYCHROME_LOGSERVICE_GARBAGE_S",
        "Pause between two rounds of collecting garbage in the bucket.",
        default=300.0,
        parse=parse_seconds,
    )
    grace_s: float = setting(
        "POLYCHROME_LOGSERVICE_GRACE_S",
        "Files in the bucket that nothing names are kept for so long; must be longer than the longest compaction.",
        default=6 * 3600.0,
        parse=parse_seconds,
    )
    audit_retention_days: int = setting(
        "POLYCHROME_LOGSERVICE_AUDIT_RETENTION_DAYS",
        "Days for which audit logs are kept, 2 or more; 0: for ever.",
        default=365,
        parse=_parse_retention_days,
    )
    retention_s: float = setting(
        "POLYCHROME_LOGSERVICE_RETENTION_S",
        "A manifest and its segments are kept for so long after a newer one replaced it.",
        default=900.0,
        parse=parse_seconds,
    )
    erase_within_s: float = setting(
        "POLYCHROME_LOGSERVICE_ERASE_WITHIN_S",
        "How soon what was asked to be erased shall be gone, unless the request says it; a metric and the receipt say "
        "which was not.",
        default=86_400.0,
        parse=parse_seconds,
    )
    erase_grace_s: float = setting(
        "POLYCHROME_LOGSERVICE_ERASE_GRACE_S",
        "In collections from which something is being erased, replaced manifests and files that nothing names are kept "
        "for no longer than this: reads and compactions that have begun are to find them.",
        default=60.0,
        parse=parse_seconds,
    )
    history_s: float = setting(
        "POLYCHROME_LOGSERVICE_HISTORY_S",
        "How far back collections can be read and forked as of the past, unless their metadata says it "
        "(`polychrome:history_s`); 0: not at all. Everything that changes meanwhile takes space in the bucket for so "
        "long.",
        default=0.0,
        parse=parse_seconds,
    )

    @property
    def periods(self) -> Periods:
        """Times for which garbage is kept."""
        return Periods(self.grace_s, self.retention_s, self.erase_grace_s)

    @property
    def policy(self) -> Policy:
        """The limits at which shards are due for compaction."""
        return Policy(self.compact_ops, self.compact_bytes, self.compact_quiet_s, self.compact_age_s)
