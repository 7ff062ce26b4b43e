"""The spellings of a UUID that clients may use."""

from __future__ import annotations

import re
import uuid
from typing import Final

_HEX: Final = r"[0-9a-fA-F]"
_DASHED: Final = rf"{_HEX}{{8}}-{_HEX}{{4}}-{_HEX}{{4}}-{_HEX}{{4}}-{_HEX}{{12}}"
_UUID: Final = re.compile(rf"{_HEX}{{32}}|{_DASHED}|\{{{_DASHED}\}}|urn:uuid:{_DASHED}", re.ASCII)


def canonical_uuid(text: str) -> str | None:
    """The usual spelling of a UUID of any version and spelling, None when `text` is not one."""
    return str(uuid.UUID(text)) if _UUID.fullmatch(text) else None
