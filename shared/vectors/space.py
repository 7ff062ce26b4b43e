"""The measures of distance that a collection can have."""

from __future__ import annotations

import enum


class Space(enum.StrEnum):
    """How the distance between two vectors is measured; smaller is nearer."""

    L2 = "l2"
    COSINE = "cosine"
    IP = "ip"
