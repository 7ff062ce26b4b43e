"""What is put back and what is lost, as rules."""

import random

import msgspec
import pytest

from logservice.healing.plan import LOST_RANGES_MAX, LostRange, lost_appends, lost_ranges
from shared.log.batch import payload_checksum
from shared.log.witness import Held, Seen


def entry(
    first: int,
    end: int,
    at: int | None = None,
    count: int | None = None,
    shard: int = 0,
    *,
    epoch: int = 0,
    conditional: bool = False,
) -> Held:
    position = first if at is None else at
    payload = f"{shard} {position}".encode()
    return Held(
        "c", shard, f"{position}-0", first, end, True, end - first if count is None else count, 1, "r",
        payload_checksum(payload), payload, (), epoch, conditional,
    )  # fmt: skip


def seen(first: int, end: int, *, acknowledged: bool = True) -> Seen:
    return Seen("c", first, end, acknowledged)


def test_appends_at_the_head_or_later_are_put_back_in_order() -> None:
    held = [entry(9, 10), entry(5, 7), entry(7, 9), entry(3, 5), entry(5, 7)]
    assert [(each.first, each.end) for each in lost_appends(5, held)] == [(5, 7), (7, 9), (9, 10)]


def test_an_append_is_put_back_only_if_all_of_it_is_there() -> None:
    parts = [entry(5, 9, 5, 1), entry(5, 9, 6, 2, shard=1), entry(5, 9, 8, 1)]
    [whole] = lost_appends(5, [parts[2], parts[0], parts[1], parts[0]])
    assert [each.id for each in whole.entries] == ["5-0", "8-0", "6-0"]  # by shard, then by position
    for number in range(3):
        assert lost_appends(5, [part for at, part in enumerate(parts) if at != number]) == []


def test_behind_a_gap_nothing_is_put_back_that_may_rest_on_what_is_lost() -> None:
    transactions = [entry(first, first + 2, conditional=True) for first in (5, 7, 11, 13)]
    assert [each.first for each in lost_appends(5, transactions)] == [5, 7]
    assert lost_appends(4, transactions) == []
    assert [each.first for each in lost_appends(5, [*transactions, entry(9, 11)])] == [5, 7, 9, 11, 13]
    assert [each.first for each in lost_appends(5, [*transactions, entry(15, 17)])] == [5, 7, 15]


def test_an_append_that_one_witness_made_and_another_one_read_is_known_not_to_rest_on_others() -> None:
    made, read = entry(9, 11), entry(9, 11, conditional=True)
    for held in ([made, read], [read, made]):
        assert [each.first for each in lost_appends(5, held)] == [9]


def test_what_an_earlier_restoration_gave_up_does_not_come_back() -> None:
    held = [entry(5, 7, epoch=1), entry(100, 102, epoch=2)]
    assert [each.first for each in lost_appends(5, held)] == [100]


def test_a_damaged_entry_is_not_put_back() -> None:
    damaged = msgspec.structs.replace(entry(5, 6), payload=b"garbage")
    assert lost_appends(5, [damaged]) == []
    assert len(lost_appends(5, [damaged, entry(5, 6)])) == 1


def test_no_two_appends_are_put_back_at_the_same_positions() -> None:
    assert [(each.first, each.end) for each in lost_appends(1, [entry(5, 9), entry(6, 8), entry(9, 10)])] == [
        (5, 9), (9, 10),
    ]  # fmt: skip


def test_what_was_witnessed_and_is_not_put_back_is_lost() -> None:
    witnessed = [seen(3, 5), seen(5, 7), seen(9, 12), seen(7, 9, acknowledged=False)]
    assert lost_ranges("c", 5, witnessed, [(5, 7)], 0) == [
        LostRange("c", 7, 9, acknowledged=False), LostRange("c", 9, 12, acknowledged=True),
    ]  # fmt: skip
    assert lost_ranges("c", 5, witnessed, [(5, 7), (7, 9), (9, 12)], 0) == []
    assert lost_ranges("c", 12, witnessed, [], 0) == []


def test_what_nobody_saw_between_what_was_seen_is_lost_without_being_called_acknowledged() -> None:
    assert lost_ranges("c", 2, [seen(5, 6)], [(5, 6)], 0) == [LostRange("c", 2, 5, acknowledged=False)]


def test_what_manifests_cover_is_not_lost() -> None:
    assert lost_ranges("c", 2, [seen(2, 9)], [], 6) == [LostRange("c", 6, 9, acknowledged=True)]
    assert lost_ranges("c", 2, [seen(2, 9)], [], 9) == []


def test_many_lost_ranges_are_named_by_a_bounded_number() -> None:
    witnessed = [seen(2 * n, 2 * n + 1) for n in range(1, 5000)]
    lost = lost_ranges("c", 1, witnessed, [(2 * n + 1, 2 * n + 2) for n in range(5000)], 0)
    assert len(lost) == LOST_RANGES_MAX
    assert (lost[-1].end, lost[-1].acknowledged) == (9999, True)


@pytest.mark.parametrize("sequence", range(50))
def test_every_position_is_put_back_covered_or_named_once(sequence: int) -> None:
    chance = random.Random(sequence)
    appends, at = [], 10
    for _ in range(30):
        appends.append((at, at + chance.randrange(1, 5)))
        at = appends[-1][1]
    known = [each for each in appends if chance.random() < 0.7]
    back = [each for each in known if chance.random() < 0.6]
    head, covered = chance.randrange(5, 40), chance.randrange(0, 40)
    witnessed = [seen(*each, acknowledged=chance.random() < 0.5) for each in known]
    lost = lost_ranges("c", head, witnessed, back, covered)
    named = [position for each in lost for position in range(each.first, each.end)]
    assert len(named) == len(set(named))
    end = max((each.end for each in witnessed if each.first >= head), default=0)
    returned = {position for first, stop in back for position in range(first, stop)}
    assert set(named) == {position for position in range(max(head, covered), end) if position not in returned}
    told = {
        position
        for each in witnessed
        if each.acknowledged and each.first >= head
        for position in range(each.first, each.end)
    }
    for each in lost:
        assert {position in told for position in range(each.first, each.end)} == {each.acknowledged}
