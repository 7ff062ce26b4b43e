"""The rules of the rounds in which the shards of a collection are compacted up to one position, its cut. Pure.

A round begins when a shard is due for compaction (`logservice.scheduling.policy`): the cut is set to the head, and
every shard with operations below it is compacted. When none is behind the cut, a root is written that names the
manifests of all shards (`shared.manifest.roots`), and the next round may begin at once.

```text
the collection                                                          step
has no cut yet (it is older than cuts are, a fork)                      BEGIN
has a shard that covers more than the cut (an older compactor did it)   BEGIN
has lost how far a shard must get in this round                         BEGIN
every shard is there, the root of this cut is not written               WRITE_ROOT
every shard is there, the root is written, a shard is due               BEGIN
every shard is there, the root is written, no shard is due              REST
shards are behind, one of them moved in the last `patience_s`           WAIT
all shards that are behind were given up, and a shard is due            BEGIN
all shards that are behind were given up, and no shard is due           WAIT
shards are behind, and none moved for `patience_s`                      they are given up, then as above
```

A shard that was given up (its log or a segment is damaged) does not hold up the others: their compactions go on,
without roots, until it moves again. Then the round was too impatient, and the patience is doubled.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from shared.log.cuts import CutState

PATIENCE_S: Final = 60.0
"""Time that a round waits for shards that do not move, in seconds, at first."""

PATIENCE_S_MAX: Final = 3600.0
"""The longest that it ever waits."""


class Step(enum.Enum):
    """The next step of a collection's round."""

    BEGIN = "begin"
    """A round: the next cut."""
    WRITE_ROOT = "write_root"
    """A root at the cut."""
    WAIT = "wait"
    """Compactions of the shards that are behind."""
    REST = "rest"
    """Nothing."""


@dataclass(frozen=True, slots=True)
class RoundMemory:
    """The leader's memory of a collection's rounds: the present cut; what the shards behind it covered, and since
    when that is so (monotonic); what those covered that were given up.
    """

    cut: int | None = None
    behind: Mapping[int, int] = field(default_factory=dict)
    moved_s: float = 0.0
    given_up: Mapping[int, int] = field(default_factory=dict)
    patience_s: float = PATIENCE_S


def next_step(state: CutState, memory: RoundMemory, due: bool, now_s: float) -> tuple[Step, RoundMemory]:
    """The next step of the collection's round, and what to remember. `due`: whether a shard is due for compaction;
    `now_s` is monotonic.
    """
    if state.cut is None or state.torn or any(shard.covers > state.cut for shard in state.shards):
        return Step.BEGIN, memory
    behind = {shard.number: shard.covers for shard in state.shards if shard.behind}
    memory = _looked(memory, state.cut, behind, now_s)
    if not behind:
        if state.rooted != state.cut:
            return Step.WRITE_ROOT, memory
        return (Step.BEGIN if due and state.head > state.cut else Step.REST), memory
    if any(number not in memory.given_up for number in behind):
        if now_s - memory.moved_s < memory.patience_s:
            return Step.WAIT, memory
        memory = RoundMemory(state.cut, behind, memory.moved_s, behind, memory.patience_s)
    return (Step.BEGIN if due and state.head > state.cut else Step.WAIT), memory


def _looked(memory: RoundMemory, cut: int, behind: Mapping[int, int], now_s: float) -> RoundMemory:
    """The memory after a look at the shards behind the cut, each with what it covers."""
    moved = cut != memory.cut or any(memory.behind.get(number) != covers for number, covers in behind.items())
    given_up = {number: covers for number, covers in memory.given_up.items() if behind.get(number) == covers}
    too_impatient = len(given_up) < len(memory.given_up)
    return RoundMemory(
        cut,
        behind,
        now_s if moved else memory.moved_s,
        given_up,
        min(PATIENCE_S_MAX, 2 * memory.patience_s) if too_impatient else memory.patience_s,
    )
