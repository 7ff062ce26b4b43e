import pytest

from queryworker.shards.log_continuity import LogGap, check_continuity, check_no_partial_append, complete_appends
from shared.cluster.placement import Layout
from shared.errors import Corrupt
from shared.log.state import Entry, Routing, ShardRead, ShardState


def _entry(position: int, previous: int, *, last: bool = True) -> Entry:
    return Entry(f"{position}-0", f"{previous}-0", position, position + 1, last, 1, b"")


def _read(*entries: Entry, tail: int, complete: bool = True) -> ShardRead:
    state = ShardState(100, f"{tail}-0", 2, 0, False, None, {}, 0, 0, 1, Routing(Layout(0, 1)), 0, None)
    return ShardRead(state, list(entries), complete)


@pytest.mark.parametrize(
    ("read", "last", "covers"),
    [
        (_read(tail=0), "0-0", 1),
        (_read(_entry(1, 0), tail=1), "0-0", 1),
        (_read(_entry(7, 3), tail=7), "3-0", 1),
        (_read(tail=3), "3-0", 1),
        (_read(_entry(7, 3), tail=7), "5-0", 6),  # a manifest covers 0 to 5; the entry at 3 is in it
        (_read(tail=3), "5-0", 6),
        (_read(_entry(7, 3), tail=90, complete=False), "3-0", 1),
    ],
)
def test_a_read_that_continues_what_is_there_is_accepted(read: ShardRead, last: str, covers: int) -> None:
    check_continuity(read, last, covers)


@pytest.mark.parametrize(
    ("read", "last", "covers"),
    [
        (_read(_entry(7, 5), tail=7), "3-0", 1),  # 5 was never seen
        (_read(tail=7), "3-0", 1),  # 7 was trimmed before it was seen
        (_read(_entry(7, 3), tail=9), "3-0", 1),
        (_read(_entry(9, 7), tail=9), "5-0", 6),  # 7 is not covered by the manifest
        (_read(tail=8), "5-0", 6),
    ],
)
def test_a_read_that_skips_an_entry_is_refused(read: ShardRead, last: str, covers: int) -> None:
    with pytest.raises(LogGap):
        check_continuity(read, last, covers)


def test_only_whole_appends_are_applied() -> None:
    parts = [_entry(1, 0), _entry(2, 1, last=False), _entry(3, 2), _entry(4, 3, last=False)]
    assert complete_appends(parts) == 3
    assert complete_appends(parts[1:2]) == 0
    with pytest.raises(Corrupt):
        check_no_partial_append(_read(*parts, tail=4), parts[3:])
    check_no_partial_append(_read(*parts, tail=4, complete=False), parts[3:])
