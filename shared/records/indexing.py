"""Which indexes a collection has: the part of its schema that whoever builds segments must know.

It is fixed when the collection is created (`ShardState.fixed`, member `indexing`), and left out where it says what a
collection without a schema of its own has: everything but sparse vectors.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import msgspec

FIXED_MEMBER: Final = "indexing"


class Indexing(msgspec.Struct, frozen=True, omit_defaults=True):
    """`off`: value types (`string`, `int`, `float`, `bool`) that are not indexed; `keys`: for single keys whether
    values of a type are. `sparse`: the keys whose sparse vectors are. `documents`: whether texts can be searched for.
    """

    off: list[str] = []
    keys: dict[str, dict[str, bool]] = {}
    sparse: list[str] = []
    documents: bool = True

    @classmethod
    def of(cls, fixed: Mapping[str, Any]) -> Indexing:
        """From what never changes of a collection."""
        return msgspec.convert(fixed.get(FIXED_MEMBER, {}), cls)

    def fixed_member(self) -> dict[str, Any]:
        """The members to add to what never changes of a collection."""
        encoded = msgspec.to_builtins(self)
        return {FIXED_MEMBER: encoded} if encoded else {}

    def has(self, key: str, value_type: str) -> bool:
        """Whether values of a type at `key` are indexed."""
        return self.keys.get(key, {}).get(value_type, value_type not in self.off)


EVERYTHING: Final = Indexing()
