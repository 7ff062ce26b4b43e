"""What is read of an append-only file with bad bytes: everything but the units that these are in."""

from __future__ import annotations

import io
import random

import pytest

from polychrome.append_only import file as append_only_file
from polychrome.append_only.file import LostBytes, Window, scan

PREFIX = b"pc:{"
KEY = b"pc:{00000000-0000-0000-0000-000000000001}:log:0"
BAIT = b"*3\r\n$3\r\nSET\r\n$5\r\nmykey\r\n$7\r\nmyvalue\r\n"
"""A document that looks like a command."""


def command(*words: bytes) -> bytes:
    return b"*%d\r\n" % len(words) + b"".join(b"$%d\r\n%s\r\n" % (len(word), word) for word in words)


def unit(number: int, payload: bytes = b"payload") -> bytes:
    entry = command(b"XADD", KEY, b"%d-0" % number, b"d", payload)
    return command(b"MULTI") + entry + command(b"HSET", b"pc:{1}:state", b"head", b"2") + command(b"EXEC")


FILE = command(b"SELECT", b"0") + b"".join(map(unit, range(1, 21))) + command(b"SET", b"pc:{lease}:x", b"me")


def lost(content: bytes) -> list[LostBytes]:
    return scan(Window(io.BytesIO(content)), PREFIX)


def kept(content: bytes) -> bytes:
    at, parts = 0, []
    for each in lost(content):
        parts.append(content[at : each.start])
        at = each.end
    return b"".join([*parts, content[at:]])


def test_a_whole_file_has_no_damage() -> None:
    assert lost(FILE) == []
    assert lost(b"") == []


@pytest.mark.parametrize("seed", range(40))
def test_wherever_a_byte_of_the_framing_is_wrong_that_unit_is_lost_and_nothing_else(seed: int) -> None:
    chance = random.Random(seed)
    victim = chance.randrange(1, 21)
    start = FILE.index(unit(victim))
    places = [at for at in range(start, start + len(unit(victim))) if FILE[at : at + 1] in b"*$\r\n"]
    at = chance.choice(places)
    broken = FILE[:at] + b"\xff" + FILE[at + 1 :]
    assert kept(broken) == FILE.replace(unit(victim), b"")
    [damage] = lost(broken)
    assert damage.start <= damage.found <= at + 1
    assert not damage.torn


@pytest.mark.parametrize(
    ("word", "instead"),
    [
        (b"$7\r\npayload", b"$8\r\npayload"),
        (b"$7\r\npayload", b"$7000000\r\npayload"),
        (b"MULTI", b"NULTI"),
        (b"EXEC", b"ECEX"),
        (b"XADD", b"YADD"),
        (b"*5", b"*9"),
        (b"*5", b"*2"),
    ],
)
def test_a_wrong_length_or_name_costs_its_unit(word: bytes, instead: bytes) -> None:
    broken = FILE.replace(unit(7), unit(7).replace(word, instead, 1))
    assert kept(broken) == FILE.replace(unit(7), b"")


@pytest.mark.parametrize("count", [b"*2", b"*4", b"*0", b"*99999999"])
def test_a_wrong_number_of_arguments_costs_a_command_and_not_the_one_behind_it(count: bytes) -> None:
    alone = command(b"SET", b"pc:{lease}:y", b"me")
    assert kept(FILE + alone.replace(b"*3", count) + FILE) == FILE + FILE


def test_two_damages_in_one_unit_cost_it_and_two_in_two_cost_both() -> None:
    twice = unit(7).replace(b"$1\r\nd", b"?1\r\nd").replace(b"$4\r\nEXEC", b"$4\r\nEX\0C")
    assert kept(FILE.replace(unit(7), twice)) == FILE.replace(unit(7), b"")
    broken = FILE.replace(unit(3), unit(3).replace(b"*5", b"*x")).replace(
        unit(9), unit(9).replace(b"MULTI", b"\0\0\0\0\0")
    )
    assert kept(broken) == FILE.replace(unit(3), b"").replace(unit(9), b"")


def test_a_hole_of_zeros_costs_the_units_that_it_is_in() -> None:
    start = FILE.index(unit(5)) + 20
    end = FILE.index(unit(8)) + 10
    assert kept(FILE[:start] + bytes(end - start) + FILE[end:]) == b"".join(
        [FILE[: FILE.index(unit(5))], FILE[FILE.index(unit(9)) :]]
    )


def test_a_document_that_looks_like_a_command_is_not_taken_for_one() -> None:
    before, baited, after = unit(1), unit(2, BAIT * 3), unit(3)
    broken = baited.replace(b"$%d\r\n" % len(BAIT * 3), b"$x\r\n")
    assert broken != baited
    assert kept(before + broken + after) == before + after


@pytest.mark.parametrize("cut", range(1, len(unit(20)), 7))
def test_a_file_that_ends_within_a_unit_is_torn_and_not_damaged(cut: int) -> None:
    whole = FILE[: FILE.index(unit(20)) + len(unit(20))]
    [damage] = lost(whole[:-cut])
    assert damage.torn
    assert damage.start == whole.index(unit(20))


def test_a_unit_behind_a_window_s_end_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(append_only_file, "WINDOW_BYTES", 1024)
    large = unit(1, random.Random(0).randbytes(9000))
    broken = large.replace(b"$9000\r\n", b"$9\0\0\0\r\n")
    assert kept(FILE + broken + FILE) == FILE + FILE
