"""The rules by which a shard is due for compaction. Pure.

A shard is due
* at once when its log holds many operations or bytes (bulk ingestion: while one compaction runs the log grows, so the
  next one takes a larger piece, and pieces are as large as compaction is slow);
* when it has not been written to for a moment (a small collection is indexed within about two seconds);
* when its oldest uncompacted write is old (a trickle that never pauses).
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Policy:
    """The limits at which a shard is due: operations or payload bytes in its log, seconds since its last write
    (`quiet_s`), age of its oldest uncompacted write in seconds (`age_s`).
    """

    ops: int
    bytes: int
    quiet_s: float
    age_s: float


@dataclass(frozen=True, slots=True)
class ShardBacklog:
    """The backlog in a shard's log. Operations and payload bytes include what is compacted but not yet trimmed; when
    there is any, `exact` is false and both say nothing. `age_s` is the age of the oldest uncompacted write, `quiet_s`
    the time since the last write, as far as the observer knows.
    """

    ops: int
    bytes: int
    exact: bool
    age_s: float
    quiet_s: float


def priority(backlog: ShardBacklog, policy: Policy) -> float | None:
    """Urgency of the shard's compaction (higher goes first), None while it is not due."""
    by_size = max(backlog.ops / policy.ops, backlog.bytes / policy.bytes) if backlog.exact else 0.0
    by_age = backlog.age_s / policy.age_s if policy.age_s else 1.0
    if by_size >= 1 or by_age >= 1 or backlog.quiet_s >= policy.quiet_s:
        # Age counts most in the long run, so that small shards are not starved by large ones.
        return by_size + by_age
    return None
