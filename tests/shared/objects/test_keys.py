"""The keys of the bucket: what is made of numbers is found again, and nothing else is taken for it."""

from collections.abc import Callable
from typing import Any

import pytest

from shared.objects import keys
from shared.objects.keys import AuditPart, EntryName, SealedRange, ShardObject

CID = "00000000-0000-4000-8000-000000000000"
SEGMENT = keys.segment_path(CID, 2, "s")
PART = AuditPart("2026-11-30", "frontend-1-17645040000000123abcd", 7)

MADE: list[tuple[str, Callable[[str], Any], Any]] = [
    (PART.key, keys.parse_audit_key, PART),
    (keys.audit_heads_key(7), keys.parse_audit_heads_key, 7),
    (keys.snapshot_key(7), keys.parse_snapshot_key, 7),
    (keys.journal_key(1, 7, "0a"), keys.parse_journal_key, EntryName(1, 7)),
    (keys.commit_key(7), keys.parse_commit_key, 7),
    (keys.root_key(CID, 1, 7), keys.parse_root_key, (CID, 1, 7)),
    (keys.manifest_key(CID, 2, 7), keys.parse_manifest_key, (CID, 2, 7)),
    (keys.segment_file_key(SEGMENT, "records.arrow"), keys.parse_segment_file_key, SEGMENT),
    (SealedRange(CID, 2, 7, 9).key, keys.parse_log_key, SealedRange(CID, 2, 7, 9)),
]


@pytest.mark.parametrize(("key", "parse", "value"), MADE)
def test_a_key_says_what_it_was_made_of_and_is_taken_for_nothing_else(
    key: str, parse: Callable[[str], Any], value: Any
) -> None:
    assert parse(key) == value
    others = {other for _, other, _ in MADE} - {parse}
    assert [other(key) for other in others] == [None] * len(others)
    assert parse(f"{key}/x") is None
    assert parse(f"x/{key}") is None


@pytest.mark.parametrize(
    ("key", "kind"),
    [
        (keys.manifest_key(CID, 2, 7), "manifests"),
        (keys.condemned_key(SEGMENT), "segments"),
        (SealedRange(CID, 2, 7, 9).key, "log"),
    ],
)
def test_the_shard_of_an_object_is_told_by_its_key(key: str, kind: str) -> None:
    assert keys.parse_shard_key(key) == ShardObject(CID, 2, kind)
    assert keys.collection_of(key) == CID


@pytest.mark.parametrize("key", [keys.snapshot_key(1), keys.journal_key(1, 1, "a"), keys.commit_key(1), "probes/x"])
def test_what_belongs_to_no_collection_is_told_apart(key: str) -> None:
    assert keys.collection_of(key) is None
    assert keys.parse_shard_key(key) is None
