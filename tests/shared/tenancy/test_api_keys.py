"""The text of API keys, and what their records let through when."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.tenancy.actions import ACTIONS_OF, PLACE_ACTIONS, Action, Role
from shared.tenancy.api_keys import (
    checksum,
    decode_record,
    digest_of,
    draw_key,
    encode_record,
    id_of_key,
    problem_of,
)
from tests.shared.tenancy.making import NOW_S, new_record


def test_a_key_has_the_form_that_the_page_says() -> None:
    key = draw_key()
    assert re.fullmatch(r"pck_[a-z0-9]{16}_[0-9A-Za-z]{43}", key.text)
    assert id_of_key(key.text) == key.id
    assert key.sha256 == digest_of(key.text)
    assert len({draw_key().text for _ in range(100)}) == 100


@given(st.integers(0, 63), st.sampled_from("aZ0_ é"))
def test_a_key_with_another_letter_is_refused_before_anything_is_looked_up(at: int, letter: str) -> None:
    text = draw_key().text
    mistyped = text[:at] + letter + text[at + 1 :]
    assert (id_of_key(mistyped) is None) == (mistyped != text)


@pytest.mark.parametrize("text", ["", "pck_", "pck_abc", "None", "Bearer"])
def test_what_is_no_key_is_refused(text: str) -> None:
    assert id_of_key(text) is None


def test_what_is_shorter_or_longer_than_a_key_is_refused() -> None:
    text = draw_key().text
    assert id_of_key(text[:-1]) is None
    assert id_of_key(text + "0") is None


def test_checksums_are_as_long_for_every_body() -> None:
    assert {len(checksum(str(number))) for number in range(500)} == {6}


def test_a_record_is_read_as_it_was_written() -> None:
    _, record = new_record(databases=["main"], collections=["c"], expires_s=NOW_S + 1)
    assert decode_record(encode_record(record)) == record


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"role": None}, "either a role or"),
        ({"actions": [Action.GET]}, "either a role or"),
        ({"role": None, "actions": []}, "of no use"),
        ({"tenant": None, "databases": ["main"]}, "without a tenant"),
        ({"collections": ["c"]}, "without a database"),
        ({"databases": []}, "empty list"),
        ({"databases": ["main"], "collections": []}, "empty list"),
    ],
)
def test_a_record_that_contradicts_itself_is_refused(changes: dict[str, object], problem: str) -> None:
    _, record = new_record(**changes)
    found = problem_of(record)
    assert found is not None
    assert problem in found
    with pytest.raises(ValueError, match=problem):
        decode_record(encode_record(record))


def test_a_record_without_its_restrictions_is_no_record() -> None:
    """A member that is missing must never mean that there is no restriction."""
    _, record = new_record()
    data = encode_record(record)
    for member in (b'"tenant":"acme",', b'"databases":null,', b'"collections":null,', b'"role":"write",'):
        assert member in data
        with pytest.raises(ValueError, match="missing required field"):
            decode_record(data.replace(member, b""))


def test_a_key_holds_until_it_expires() -> None:
    text, record = new_record(expires_s=NOW_S + 10)
    assert record.holds_until(digest_of(text), NOW_S) == NOW_S + 10
    assert record.holds_until(digest_of(text), NOW_S + 10) is None
    assert record.holds_until(digest_of(draw_key(record.id).text), NOW_S) is None


def test_a_revoked_key_holds_no_more_for_good() -> None:
    text, record = new_record()
    revoked = record.revoked(NOW_S)
    assert revoked.holds_until(digest_of(text), NOW_S) is None
    assert revoked.revoked(NOW_S + 5) == revoked
    assert revoked.rotated(draw_key(record.id).sha256, NOW_S, 0).holds_until(digest_of(text), NOW_S) is None


def test_both_keys_hold_while_a_key_is_rotated() -> None:
    text, record = new_record()
    second = draw_key(record.id)
    rotated = record.rotated(second.sha256, NOW_S, overlap_s=60)
    assert rotated.holds_until(digest_of(text), NOW_S) == NOW_S + 60
    assert rotated.holds_until(digest_of(text), NOW_S + 60) is None
    assert rotated.holds_until(second.sha256, NOW_S + 60) == float("inf")


def test_rotating_twice_leaves_the_two_newest_keys_and_makes_none_hold_longer() -> None:
    text, record = new_record()
    second, third = draw_key(record.id), draw_key(record.id)
    rotated = record.rotated(second.sha256, NOW_S, 60).rotated(third.sha256, NOW_S + 1, 3600)
    assert rotated.holds_until(digest_of(text), NOW_S + 1) is None
    assert rotated.holds_until(second.sha256, NOW_S + 1) == NOW_S + 3601
    assert rotated.rotated(draw_key(record.id).sha256, NOW_S, 0).hashes[0].until_s is None


def test_actions_of_a_key_are_those_of_its_role_or_the_named_ones_with_its_own_place() -> None:
    assert new_record(role=Role.ADMIN)[1].allowed() == ACTIONS_OF[Role.ADMIN]
    assert new_record(role=None, actions=[Action.GET])[1].allowed() == {Action.GET} | PLACE_ACTIONS
