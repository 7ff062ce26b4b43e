"""The checker itself: it finds what it is for."""

from collections.abc import Mapping

import pytest

from tests.transactions.histories import Anomaly, Done, check_serialisable, settled


def done(
    name: str, reads: Mapping[str, str | None], writes: str = "", began: float = 0.0, ended: float | None = 100.0
) -> Done:
    return Done(name, reads, frozenset(writes), began, ended)


def test_a_serial_history_is_explained() -> None:
    history = [
        done("third", {"x": "second", "y": "first"}, began=4, ended=5),
        done("first", {"x": None, "y": None}, "xy", began=0, ended=1),
        done("second", {"x": "first"}, "x", began=2, ended=3),
    ]
    assert check_serialisable(history, {"x": "second", "y": "first"}) == ["first", "second", "third"]


def test_a_lost_update_is_found() -> None:
    history = [done("one", {"x": None}, "x"), done("other", {"x": None}, "x")]
    with pytest.raises(Anomaly, match="both overwrote x"):
        check_serialisable(history, {"x": "other"})


def test_a_write_that_is_not_there_in_the_end_is_found() -> None:
    with pytest.raises(Anomaly, match="x is as None left it"):
        check_serialisable([done("one", {"x": None}, "x")], {"x": None})


def test_write_skew_is_found() -> None:
    history = [done("one", {"x": None, "y": None}, "x"), done("other", {"x": None, "y": None}, "y")]
    with pytest.raises(Anomaly, match="cycle"):
        check_serialisable(history, {"x": "one", "y": "other"})


def test_half_a_transaction_is_found() -> None:
    history = [done("writer", {"x": None, "y": None}, "xy"), done("reader", {"x": "writer", "y": None})]
    with pytest.raises(Anomaly, match="cycle"):
        check_serialisable(history, {"x": "writer", "y": "writer"})


def test_a_read_of_what_nobody_wrote_is_found() -> None:
    with pytest.raises(Anomaly, match="did not write"):
        check_serialisable([done("reader", {"x": "aborted"})], {"x": None})


def test_a_read_of_the_past_is_found() -> None:
    history = [done("writer", {"x": None}, "x", began=0, ended=1), done("reader", {"x": None}, began=2, ended=3)]
    with pytest.raises(Anomaly, match="cycle"):
        check_serialisable(history, {"x": "writer"})
    check_serialisable([history[0], done("reader", {"x": None}, began=0.5, ended=3)], {"x": "writer"})


def test_what_came_of_an_unknown_outcome_is_seen_in_what_others_read() -> None:
    seen = done("seen", {"x": None}, "x", ended=None)
    seen_by_unknown = done("overwritten", {"y": None}, "y", ended=None)
    last = done("last", {"y": "overwritten"}, "y", ended=None)
    never = done("never", {"x": "seen"}, "x", ended=None)
    history = settled([done("reader", {"x": "seen"})], [seen, seen_by_unknown, last, never], {"x": "seen", "y": "last"})
    assert {one.name for one in history} == {"reader", "seen", "overwritten", "last"}
    check_serialisable(history, {"x": "seen", "y": "last"})
