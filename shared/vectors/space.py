"""The measures of distance that a collection can have."""

from __future__ import annotations

import enum


class Space(enum.StrEnum):
    """A measure of the distance between two vectors; smaller is nearer."""

    L2 = "l2"
    COSINE = "cosine"
    IP = "ip"
