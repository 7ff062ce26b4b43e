"""What a witness keeps: within its budget of bytes and seconds."""

import dataclasses

from shared.log.append import AppendRequest
from shared.log.batch import EncodedEntry
from shared.log.state import Entry
from shared.log.witness import OVERHEAD_BYTES, SEEN_MAX, Witness


class Clock:
    """Time that moves when the test says so."""

    def __init__(self) -> None:
        self.time_s = 1000.0

    def now(self) -> float:
        return self.time_s

    def monotonic(self) -> float:
        return self.time_s

    async def sleep(self, seconds: float) -> None:
        self.time_s += seconds


def request(collection: str = "c", size: int = 100) -> AppendRequest:
    batches = {0: [EncodedEntry(0, 1, b"x" * size), EncodedEntry(1, 1, b"y")], 3: [EncodedEntry(2, 1, b"z")]}
    return AppendRequest(
        collection_id=collection, request_id="r", batches=batches, dimension=2, generation=None, new_keys=[("k", "int")]
    )


def test_an_acknowledged_append_is_held_as_its_entries() -> None:
    witness = Witness(Clock(), 1 << 20, 60)
    witness.appended(request(), 5, 8, 77)
    held, seen = witness.beyond({"c": 5})
    assert [(each.shard, each.id, each.first, each.end, each.last, each.count) for each in held] == [
        (0, "5-0", 5, 8, False, 1), (0, "6-0", 5, 8, True, 1), (3, "7-0", 5, 8, True, 1),
    ]  # fmt: skip
    assert {(each.time_ms, each.request_id, each.pairs) for each in held} == {(77, "r", ('["k","int"]',))}
    assert [(each.first, each.end, each.acknowledged) for each in seen] == [(5, 8, True)]
    assert witness.beyond({"c": 6}) == ([], [])
    assert witness.beyond({}) == ([], [])
    assert witness.beyond({"c": 0}).held == held


def test_beyond_the_budget_positions_are_kept_and_entries_are_not() -> None:
    witness = Witness(Clock(), 4 * (OVERHEAD_BYTES + 1000), 60)
    for number in range(10):
        witness.appended(request(size=1000), 10 * number + 1, 10 * number + 4, 0)
    held, seen = witness.beyond({"c": 0})
    assert sum(len(each.payload) + OVERHEAD_BYTES for each in held) <= 4 * (OVERHEAD_BYTES + 1000)
    assert [each.first for each in held] == [71, 81, 81, 81, 91, 91, 91]  # of 71 the smaller ones
    assert [each.first for each in seen] == list(range(1, 100, 10))


def test_after_its_seconds_nothing_is_kept() -> None:
    clock = Clock()
    witness = Witness(clock, 1 << 20, 60)
    witness.appended(request("a"), 1, 4, 0)
    clock.time_s += 40
    witness.appended(request("b"), 1, 4, 0)
    clock.time_s += 30
    assert witness.collections == {"b"}
    assert {each.collection for each in witness.beyond({"a": 0, "b": 0}).held} == {"b"}
    assert witness._bytes == sum(len(each.payload) + OVERHEAD_BYTES for each in witness.beyond({"b": 0}).held)


def test_what_is_read_is_held_once_and_what_is_old_is_passed_over() -> None:
    clock = Clock()
    witness = Witness(clock, 1 << 20, 60)
    entry = Entry("5-0", "1-0", 5, 6, True, 1, b"x", "2 2", 990_000, "sum", "chain", "before", "r")
    witness.read("c", 0, [entry, dataclasses.replace(entry, id="6-0", time_ms=900_000)])
    witness.read("c", 0, [entry, dataclasses.replace(entry, id="7-0", chain=""), dataclasses.replace(entry, count=0)])
    held, seen = witness.beyond({"c": 0})
    assert [(each.id, each.request_id, each.checksum) for each in held] == [("5-0", "r", "sum")]
    assert [(each.first, each.end, each.acknowledged) for each in seen] == [(5, 6, False)]


def test_the_positions_that_are_kept_are_bounded_too() -> None:
    witness = Witness(Clock(), 1, 60)
    for number in range(SEEN_MAX + 10):
        witness.appended(request(), 3 * number + 1, 3 * number + 4, 0)
    assert len(witness.beyond({"c": 0}).seen) == SEEN_MAX
