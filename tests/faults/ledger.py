"""What a workload knows about the records it wrote: what must be true, what may be, what cannot.

Every id has one writer and a history of states. A state is what the record holds, or None for «absent».

    states    None   s1   s2   s3   s4
                          |         |
                       settled     sent, not yet answered

* `settled` is the newest acknowledged state: everything before it is over and must never be read again.
* A read may see any state from the one that was settled when it began to the newest one sent before it ended.
* A write that was refused leaves no state. A write whose outcome stays unknown *retires* its ids: nobody writes
  them again, so that they hold either the settled state or the one after it for ever, and all of the write's
  ids hold the same choice.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple


class State(NamedTuple):
    """`version` decides document and embedding, `patch` is one more metadata value, changed without the rest."""

    version: int
    patch: int


@dataclass
class History:
    states: list[State | None] = field(default_factory=lambda: [None])
    settled: int = 0
    retired: bool = False


class Violation(AssertionError):
    """The server broke a promise."""


class Ledger:
    def __init__(self) -> None:
        self.histories: dict[str, History] = {}
        self.unknown: list[dict[str, State | None]] = []
        self.acknowledged_writes = 0
        self.acknowledged_records = 0

    def settled(self, record_id: str) -> State | None:
        history = self.histories[record_id]
        return history.states[history.settled]

    def sent(self, states: Mapping[str, State | None]) -> None:
        for record_id, state in states.items():
            history = self.histories.setdefault(record_id, History())
            assert not history.retired
            assert history.settled == len(history.states) - 1, "one write at a time for each id"
            history.states.append(state)

    def acknowledged(self, states: Mapping[str, State | None]) -> None:
        for record_id in states:
            self.histories[record_id].settled += 1
        self.acknowledged_writes += 1
        self.acknowledged_records += len(states)

    def refused(self, states: Mapping[str, State | None]) -> None:
        """It was certainly not applied."""
        for record_id in states:
            self.histories[record_id].states.pop()

    def lost_sight_of(self, states: Mapping[str, State | None]) -> None:
        """Nobody knows whether it was applied."""
        for record_id in states:
            self.histories[record_id].retired = True
        self.unknown.append(dict(states))

    def floors(self, ids: Sequence[str] | None = None) -> dict[str, int]:
        """Taken before a read: which states are over already. Without `ids`: of all."""
        return {record_id: self.histories[record_id].settled for record_id in (self.histories if ids is None else ids)}

    def check_read(self, seen: Mapping[str, State | None], floors: Mapping[str, int]) -> None:
        """Every state seen is one that this read may see. An id without a floor was first sent after the read began."""
        for record_id, state in seen.items():
            if record_id not in self.histories:
                raise Violation(f"{record_id} was never written and reads {state}")
            history = self.histories[record_id]
            floor = floors.get(record_id, 0)
            if state not in history.states[floor:]:
                over = "a state that was over" if state in history.states else "a state that never was"
                raise Violation(f"{record_id} reads {state}, {over}; settled then: {history.states[floor]}")

    def check_whole(self, seen: Mapping[str, State]) -> None:
        """`seen` is everything that the collection holds, read when no write was under way."""
        if strangers := seen.keys() - self.histories.keys():
            raise Violation(f"{len(strangers)} records that nobody wrote, such as {min(strangers)}")
        self.check_read({record_id: seen.get(record_id) for record_id in self.histories}, self.floors())
        for write in self.unknown:
            applied = {record_id: seen.get(record_id) == state for record_id, state in write.items()}
            # A delete of an absent record looks the same either way: it can't tell.
            telling = {record_id for record_id, state in write.items() if self.settled(record_id) != state}
            if len({applied[record_id] for record_id in telling}) > 1:
                raise Violation(f"half of a batch is there: {applied}")
