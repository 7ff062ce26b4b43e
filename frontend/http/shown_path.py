"""Paths as log lines show them."""

from __future__ import annotations

from typing import Final

from shared.tenancy.credential_text import without_credentials

SHOWN_PATH_CHARACTERS_MAX: Final = 512
"""Characters of a path that a log line shows."""

_CUT: Final = "..."


def shown_path(path: str) -> str:
    """The path as a log line shows it: its beginning, when it is long, and without the keys that somebody put there."""
    return without_credentials(
        path if len(path) <= SHOWN_PATH_CHARACTERS_MAX else path[:SHOWN_PATH_CHARACTERS_MAX] + _CUT
    )
