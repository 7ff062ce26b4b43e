"""Records of the audit log, and the chain that holds them together."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from shared.objects.keys import AuditPart, parse_audit_key
from shared.objects.port import check_key
from shared.tenancy.api_keys import draw_key
from shared.tenancy.audit import Actor, ActorKind, AuditOutcome, Event, Gap, chain_name, moment_of, shown_text
from shared.tenancy.audit_chain import NOTHING, PART_BYTES, PART_BYTES_MAX, CheckedPart, check_part, entries_of, seal

TIME = "2026-11-30T12:00:00.000Z"
PLACE = AuditPart("2026-11-30", chain_name("frontend-a", 1764504000.0, "0123abcd"), 3)


def event(number: int = 0, **members: object) -> Event:
    common = {
        "time": TIME,
        "actor": Actor(ActorKind.KEY, f"key{number}"),
        "route": "/x",
        "outcome": AuditOutcome.DENIED,
    }
    return Event(**{**common, **members})  # type: ignore[arg-type]


EVENTS = [event(number) for number in range(6)]
SEALED = seal(PLACE, NOTHING, EVENTS)
LINES = SEALED.data.splitlines(keepends=True)


def checked(lines: list[bytes], place: AuditPart = PLACE) -> CheckedPart:
    return check_part(place, b"".join(lines))


def test_a_part_is_read_as_it_was_written() -> None:
    part = check_part(PLACE, SEALED.data)
    assert part.flaws == []
    assert part.entries == EVENTS
    assert (part.prev, part.sha256, part.closed) == (NOTHING, SEALED.sha256, False)
    assert list(entries_of(SEALED.data)) == EVENTS
    following = seal(PLACE._replace(number=4), part.sha256, [Gap(time=TIME, lost=7, since=TIME)], closed=True)
    after = check_part(PLACE._replace(number=4), following.data)
    assert (after.flaws, after.prev, after.closed) == ([], SEALED.sha256, True)


def changed(number: int) -> list[bytes]:
    lines = list(LINES)
    lines[number] = lines[number].replace(b"denied", b"hidden")
    return lines


def renumbered(number: int) -> list[bytes]:
    """Without a line, the numbers of those behind it put right."""
    lines = [*LINES[:number], *LINES[number + 1 :]]
    return [b'{"n":%d,' % at + line.partition(b",")[2] for at, line in enumerate(lines)]


TAMPERED: list[tuple[str, Callable[[], list[bytes]], str]] = [
    ("changed", lambda: changed(3), "line 3 was changed"),
    ("the last event changed", lambda: changed(6), "line 6 was changed"),
    ("removed", lambda: [*LINES[:2], *LINES[3:]], "line 2 is missing"),
    ("several removed", lambda: [*LINES[:2], *LINES[4:]], "lines 2 to 3 are missing"),
    ("removed and numbered anew", lambda: renumbered(2), "line 1 was changed, or line 2"),
    ("added", lambda: [*LINES[:3], LINES[1], *LINES[3:]], "line 1 was added, or moved"),
    ("swapped", lambda: [*LINES[:2], LINES[3], LINES[2], *LINES[4:]], "line 2 was added, or moved"),
    ("added behind the end", lambda: [*LINES, LINES[3]], "line 3 was added"),
    ("cut off", lambda: [*LINES[:-1], LINES[-1][:-9]], "its last line is cut off"),
    ("the end removed", lambda: LINES[:-1], "its last line is missing"),
    ("the beginning removed", lambda: LINES[1:], "its first line is missing"),
    ("written otherwise", lambda: [*LINES[:2], LINES[2].replace(b'"time":', b'"time": '), *LINES[3:]], "no process"),
    ("another member", lambda: [*LINES[:2], LINES[2].replace(b"}\n", b',"x":1}\n'), *LINES[3:]], "cannot be read"),
    ("no JSON", lambda: [*LINES[:2], b"garbage\n", *LINES[3:]], "line 2 was changed"),
    ("nothing", list, "its first line is missing"),
]  # fmt: skip


@pytest.mark.parametrize(("tamper", "flaw"), [case[1:] for case in TAMPERED], ids=[case[0] for case in TAMPERED])
def test_what_was_done_to_a_part_is_named(tamper: Callable[[], list[bytes]], flaw: str) -> None:
    lines = tamper()
    assert lines != LINES
    assert flaw in "; ".join(checked(lines).flaws)


def test_every_bit_of_a_part_but_of_its_last_line_is_held() -> None:
    data = bytearray(seal(PLACE, NOTHING, EVENTS[:2]).data)
    last = data.rindex(b"\n", 0, len(data) - 1)
    for at in range(last):
        for bit in (1, 128):
            data[at] ^= bit
            part = check_part(PLACE, bytes(data))
            assert part.flaws or part.prev != NOTHING, at
            data[at] ^= bit


def test_a_part_in_anothers_place_is_named() -> None:
    for place in (PLACE._replace(number=2), PLACE._replace(day="2026-12-01"), PLACE._replace(chain=PLACE.chain[:-1])):
        assert "and not the one whose place it has" in check_part(place, SEALED.data).flaws[0]


def test_a_part_takes_about_so_many_bytes() -> None:
    many = [event(number, subject="x" * 250) for number in range(4000)]
    sealed = seal(PLACE, NOTHING, many, closed=True)
    assert PART_BYTES < len(sealed.data) < PART_BYTES + 2000
    part = check_part(PLACE, sealed.data)
    assert part.flaws == []
    assert not part.closed, "there is more"
    assert part.entries == many[: sealed.entries]
    assert check_part(PLACE, bytes(PART_BYTES_MAX + 1)).flaws == ["it is longer than a part can be"]


def test_flaws_that_are_named_are_bounded() -> None:
    assert len(checked([LINES[0], *[b"x\n"] * 1000]).flaws) < 30


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain name", "plain name"),
        ("Zürich 東京", "Zürich 東京"),
        ("two\nlines\x1b[31m", "two\\nlines\\x1b[31m"),
        ("a\\nb", "a\\\\nb"),
        ("right\u202eto left\x7f", "right\\u202eto left\\x7f"),
        ("half \ud800", "half \\ud800"),
        ("x" * 5000, "x" * 256 + "..."),
        ("\u202e" * 5000, "\\u202e" * 42 + "\\u20" + "..."),
        ("eyJhbGciOi.eyJzdWIi.c2ln", "eyJ[cut]"),
    ],
)
def test_what_senders_choose_is_escaped_and_bounded(text: str, shown: str) -> None:
    assert shown_text(text) == shown
    part = check_part(PLACE, seal(PLACE, NOTHING, [event(subject=shown)]).data)
    assert part.flaws == []
    assert isinstance(part.entries[0], Event)
    assert part.entries[0].subject == shown


@settings(max_examples=200, deadline=None)
@given(st.text(st.characters(), max_size=600))
@example("\U0001d173" * 1000)
def test_whatever_a_sender_chooses_can_be_read_again(text: str) -> None:
    shown = shown_text(text)
    assert shown.isprintable()
    assert len(shown) <= 259
    part = check_part(PLACE, seal(PLACE, NOTHING, [event(subject=shown, tenant=shown, collection=shown)]).data)
    assert part.flaws == []
    assert isinstance(part.entries[0], Event)
    assert part.entries[0].tenant == shown


def test_a_key_is_cut_out_of_a_text_but_for_its_id() -> None:
    key = draw_key()
    shown = shown_text(f"/keys/{key.text}/revoke")
    assert shown == f"/keys/pck_{key.id}[cut]/revoke"
    assert shown_text(f"pck_{key.id}") == f"pck_{key.id}"
    assert "[cut]" in shown_text(key.text[:30])


def test_who_may_see_an_event_of_a_tenant() -> None:
    def concerns(tenant: str, of_actor: str = "") -> bool:
        return event(tenant=tenant, actor=Actor(ActorKind.KEY, "k", tenant=of_actor)).concerns("mine")

    assert concerns("mine")
    assert concerns("mine", "mine")
    assert concerns("other", "mine"), "what its own have tried elsewhere"
    assert not concerns("mine", "other"), "what others have tried at it is theirs"
    assert not concerns("other")
    assert not concerns("")


@pytest.mark.parametrize("process", ["frontend-host-1", "a/b c", ".hidden", "", "ä~" * 100])
def test_the_place_of_a_part_is_a_key_that_is_taken_apart_again(process: str) -> None:
    place = AuditPart("2026-11-30", chain_name(process, 1764504000.0, "0123abcd"), 12)
    assert parse_audit_key(place.key) == place
    assert check_key(place.key)
    assert moment_of(1764504000.0) == "2025-11-30T12:00:00.000Z"
