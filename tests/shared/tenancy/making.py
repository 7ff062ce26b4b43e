"""Key records for tests."""

from __future__ import annotations

from typing import Any

import msgspec

from shared.tenancy.actions import Role
from shared.tenancy.api_keys import KeyHash, KeyRecord, draw_key

NOW_S = 1_800_000_000.0


def new_record(**changes: Any) -> tuple[str, KeyRecord]:
    """A key's text and its record: of the tenant `acme`, with the role `write`, unless `changes` say otherwise."""
    key = draw_key()
    record = KeyRecord(
        id=key.id,
        name="a key",
        tenant="acme",
        databases=None,
        collections=None,
        role=Role.WRITE,
        actions=None,
        created_s=NOW_S,
        creator="test",
        expires_s=None,
        hashes=[KeyHash(key.sha256)],
    )
    return key.text, msgspec.structs.replace(record, **changes)
