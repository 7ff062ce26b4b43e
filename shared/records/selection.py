"""Selections: which records a request is about."""

from __future__ import annotations

from typing import Final

import msgspec

from shared.records.where import Where


class Selection(msgspec.Struct, frozen=True, omit_defaults=True):
    """The records with one of these ids that match the filter. None restricts nothing; `ids=[]` selects no record."""

    ids: list[str] | None = None
    where: Where | None = None


EVERYTHING: Final = Selection()
