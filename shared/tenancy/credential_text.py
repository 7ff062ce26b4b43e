"""Credentials in texts that are written down: people put keys into paths, where they have no business."""

from __future__ import annotations

import re
from typing import Final

_CREDENTIAL: Final = re.compile(
    r"(pck_[A-Za-z0-9]{0,16}+)[A-Za-z0-9_]+|(eyJ)[A-Za-z0-9_=-]+\.[A-Za-z0-9_.=-]*", re.ASCII
)
"""An API key, of which the id may stay, or a JWT."""


def without_credentials(text: str) -> str:
    """The text, with `[cut]` in the place of what makes a key or a token one."""
    return _CREDENTIAL.sub(r"\1\2[cut]", text) if "pck_" in text or "eyJ" in text else text
