"""The setting of the audit log: which requests leave an event."""

from __future__ import annotations

from typing import Final

OFF: Final = "off"
CONTROL: Final = "control"
"""Denials, and the control plane: what changes tenants, databases, collections and keys."""
ALL: Final = "all"
"""Everything but what anyone may ask for."""
MODES: Final = (OFF, CONTROL, ALL)


def parse_audit_mode(text: str) -> str:
    """A mode; an empty text is one, too. Raises ValueError with a sentence."""
    if text and text not in MODES:
        raise ValueError(f"expected one of {', '.join(MODES)}")
    return text


def audit_mode(given: str, *, authenticates: bool) -> str:
    """The mode that holds when `given` is set: without one, the control plane where requests need a credential."""
    return given or (CONTROL if authenticates else OFF)
