"""The condition of an append: that ids which were read have not been written since.

docs/design/2026-11-21-transactions.md says how it is checked.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

CONFLICT: Final = "conditional write conflict: something that was read has been written since"


@dataclass(frozen=True, slots=True)
class IdsRead:
    """Ids of one shard, none of them empty, which were read and are known to be unchanged up to the position `since`
    (exclusive).
    """

    since: int
    ids: Sequence[str]


@dataclass(frozen=True, slots=True)
class Condition:
    """Holds when no id in `reads` (by shard) was written at the position `token`, as of which they were read, or later.
    Each `since` is the token, or a later position that the collection's head once was.
    """

    token: int
    reads: Mapping[int, IdsRead]

    def encode(self) -> tuple[int, list[tuple[int, int, Sequence[str]]]]:
        """As append.lua unpacks it: the token, and per shard its number, `since` and the ids."""
        return self.token, [(shard, read.since, read.ids) for shard, read in self.reads.items()]


class Undecided(Exception):  # no error
    """In these shards, the log alone does not tell whether the condition holds. Nothing was appended: the caller has to
    prove it otherwise, and try again.
    """

    def __init__(self, shards: Sequence[int]) -> None:
        super().__init__(f"the log does not tell about the ids read in shards {list(shards)}")
        self.shards = shards
