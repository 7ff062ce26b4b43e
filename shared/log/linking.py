"""The entries of one reply of the log, each verified, and proved to continue the one before it. Pure.

```text
after          what the reader has        [ entries of the reply .......................... ]        tail
                                    |                 |                  |             |
                     (1) trimmed, or missing   (2) damaged?    (3) missing between   (4) missing
```

1. The first entry follows one that the reader has, or one that was trimmed: the state says up to where. Whether it is
   the very one that the reader has, the reader compares, or gives its chain.
2. Each entry proves itself (`shared.log.verification`).
3. Each follows the one before it.
4. The last entry of a complete reply is the newest, with the chain that the state has; or the newest was trimmed.

Where that fails the linking ends: what comes behind a damaged or missing entry is not to be read. A *substitute*
(`shared.log.substitutes`) takes the place of one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final, NamedTuple

from shared.log.state import FIRST_ID, Entry, ShardState, position_of
from shared.log.verification import DamagedEntry, RawEntry, check_chain, check_follows, missing_entry, verified_entry

NO_SUBSTITUTES: Final[Mapping[str, Entry]] = {}


class Linked(NamedTuple):
    """Entries that follow each other, up to the first that is damaged or missing, if any."""

    entries: list[Entry]
    damage: DamagedEntry | None


class _Linking:
    """Entries of one shard that were linked so far, behind the id `after`."""

    def __init__(
        self, collection_id: str, state: ShardState, after: str, after_chain: str, substitutes: Mapping[str, Entry]
    ) -> None:
        self._place = (collection_id, state.number)
        self._trimmed = state.trimmed
        self._after, self._after_chain = after, after_chain
        self._substitutes = substitutes
        self.entries: list[Entry] = []

    def add(self, raw: RawEntry) -> None:
        """Links the next entry of the reply. Raises DamagedEntry."""
        try:
            entry = verified_entry(*self._place, raw)
        except DamagedEntry:
            substitute = self._substitutes.get(raw[0].decode())
            if substitute is None:
                raise
            entry = substitute
        self._fill(entry.previous, entry.id)
        self._append(entry)

    def _append(self, entry: Entry) -> None:
        if self.entries:
            check_follows(*self._place, self.entries[-1], entry)
        elif entry.previous == self._after:
            check_chain(*self._place, self._after, self._after_chain, entry)
        self.entries.append(entry)

    def end(self, state: ShardState) -> None:
        """Raises DamagedEntry unless the newest entry is the one that the state names, or was trimmed."""
        self._fill(state.tail, None)
        if self.entries and self.entries[-1].id == state.tail:
            newest = self.entries[-1]
            if newest.chain and state.chain and newest.chain != state.chain:
                self.entries.pop()
                reason = "its chain is not the one that the state has of it"
                raise DamagedEntry(*self._place, newest.id, reason, end=newest.end)

    def _fill(self, newest: str, before: str | None) -> None:
        """Makes `newest` the last entry that is linked, by substitutes for what is missing in front of `before`. Raises
        DamagedEntry when there is none.
        """
        last = self.entries[-1].id if self.entries else self._after
        missing: list[Entry] = []
        while position_of(newest) > position_of(last) and position_of(newest) >= self._trimmed:
            substitute = self._substitutes.get(newest)
            if substitute is None:
                first = position_of(last) + (self.entries[-1].count if self.entries else 1)
                raise missing_entry(*self._place, newest, first, before)
            missing.append(substitute)
            newest, before = substitute.previous, substitute.id
        for entry in reversed(missing):
            self._append(entry)


def link(
    collection_id: str,
    state: ShardState,
    after: str,
    reply: Sequence[RawEntry],
    *,
    complete: bool,
    after_chain: str = "",
    substitutes: Mapping[str, Entry] = NO_SUBSTITUTES,
) -> Linked:
    """Links the entries of a reply about the shard of `state`, read behind the id `after`; `complete` when there were
    no more. `after_chain` is the chain of the entry `after`, "" when that is not known. `substitutes` are by the ids of
    the entries that they stand for.
    """
    linking = _Linking(collection_id, state, after, after_chain, substitutes)
    try:
        for raw in reply:
            linking.add(raw)
        if complete:
            linking.end(state)
    except DamagedEntry as damage:
        damage.state = state
        return Linked(linking.entries, damage)
    return Linked(linking.entries, None)


def lost_newest(state: ShardState, reply: Sequence[RawEntry]) -> bool:
    """Whether a complete reply has entries, and the state does not say, or not by its chain, which is the newest. An
    entry of version 0.1.0 has no chain.
    """
    if not reply or not state.serves:
        return False
    return state.tail == FIRST_ID or (not state.chain and b"h" in reply[-1][1][0::2])
