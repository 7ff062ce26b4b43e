"""When a shard is due for compaction. Pure.

A shard is due
* at once when its log holds many operations or bytes (bulk ingestion: while one compaction runs the log grows, so the
  next one takes a larger piece, and pieces are as large as compaction is slow);
* when nobody has written to it for a moment (a small collection is indexed within about two seconds);
* when its oldest uncompacted write is old (a trickle that never pauses).
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Policy:
    """The limits; `quiet_s` and `age_s` in seconds."""

    ops: int
    bytes: int
    quiet_s: float
    age_s: float


@dataclass(frozen=True, slots=True)
class Waiting:
    """The backlog in a shard's log. Operations and bytes include what is compacted but not yet trimmed; when that is
    so, `exact` is false and they say nothing. Age is that of the oldest uncompacted write, as far as the observer
    knows.
    """

    ops: int
    bytes: int
    exact: bool
    age_s: float
    quiet_s: float


def priority(waiting: Waiting, policy: Policy) -> float | None:
    """How urgent the shard's compaction is (higher goes first), None while it is not due."""
    by_size = max(waiting.ops / policy.ops, waiting.bytes / policy.bytes) if waiting.exact else 0.0
    by_age = waiting.age_s / policy.age_s if policy.age_s else 1.0
    if by_size >= 1 or by_age >= 1 or waiting.quiet_s >= policy.quiet_s:
        # Age counts most in the long run, so that small shards are not starved by large ones.
        return by_size + by_age
    return None
