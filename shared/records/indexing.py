"""The indexes of a collection: what the builder of a segment has to know of the collection's schema.

It is fixed when the collection is created (`ShardState.fixed`, member `indexing`). The member is left out for a
collection that indexes what collections without a schema do: everything but sparse vectors.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import msgspec

FIXED_MEMBER: Final = "indexing"


class Indexing(msgspec.Struct, frozen=True, omit_defaults=True):
    """The indexes that are built. `off` are the value types (`string`, `int`, `float`, `bool`) that are not; `keys`
    says for single keys whether values of a type are, whatever `off` says; `sparse` are the keys whose sparse vectors
    are; `documents` is whether documents are.
    """

    off: list[str] = []
    keys: dict[str, dict[str, bool]] = {}
    sparse: list[str] = []
    documents: bool = True

    @classmethod
    def of(cls, fixed: Mapping[str, Any]) -> Indexing:
        """The indexing of a collection, from the JSON object of what never changes of it."""
        return msgspec.convert(fixed.get(FIXED_MEMBER, {}), cls)

    def fixed_member(self) -> dict[str, Any]:
        """The members to add to the JSON object of what never changes of a collection."""
        encoded = msgspec.to_builtins(self)
        return {FIXED_MEMBER: encoded} if encoded else {}

    def has(self, key: str, value_type: str) -> bool:
        """Whether values of a type at `key` are indexed."""
        return self.keys.get(key, {}).get(value_type, value_type not in self.off)


msgspec.json.Decoder(Indexing)  # describes the type before threads use it (tests/test_tidy.py says why)

EVERYTHING: Final = Indexing()
