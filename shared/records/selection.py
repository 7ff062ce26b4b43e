"""Which records a request means."""

from __future__ import annotations

from typing import Final

import msgspec

from shared.records.where import Where


class Selection(msgspec.Struct, frozen=True, omit_defaults=True):
    """Which records are meant: the intersection of what is given. `ids=None` is no restriction, `[]` nothing."""

    ids: list[str] | None = None
    where: Where | None = None


EVERYTHING: Final = Selection()
