"""The ledger sees what it is there to see."""

from collections.abc import Mapping

import pytest

from tests.faults.ledger import Ledger, State, Violation


def written(ledger: Ledger, states: Mapping[str, State | None]) -> None:
    ledger.sent(states)
    ledger.acknowledged(states)


@pytest.fixture
def ledger() -> Ledger:
    """`a` was overwritten, `b` deleted."""
    ledger = Ledger()
    written(ledger, {"a": State(1, 0), "b": State(1, 0)})
    written(ledger, {"a": State(2, 0), "b": None})
    return ledger


def test_the_settled_state_is_right(ledger: Ledger) -> None:
    ledger.check_read({"a": State(2, 0), "b": None}, ledger.floors())
    ledger.check_whole({"a": State(2, 0)})


@pytest.mark.parametrize(
    "seen",
    [
        {"a": None},
        {"a": State(1, 0)},
        {"a": State(9, 0)},
        {"a": State(2, 0), "b": State(1, 0)},
        {"a": State(2, 0), "c": State(1, 0)},
    ],
    ids=["lost", "over", "never sent", "resurrected", "invented"],
)
def test_what_cannot_be_is_a_violation(ledger: Ledger, seen: dict[str, State | None]) -> None:
    with pytest.raises(Violation):
        ledger.check_read(seen, ledger.floors() | {"c": 0})
    with pytest.raises(Violation):
        ledger.check_whole({record_id: state for record_id, state in seen.items() if state is not None})


def test_a_read_may_see_what_was_settled_while_it_ran(ledger: Ledger) -> None:
    floors = ledger.floors()
    written(ledger, {"a": State(3, 0)})
    ledger.check_read({"a": State(2, 0)}, floors)
    ledger.check_read({"a": State(3, 0)}, floors)


def test_a_refused_write_must_not_show(ledger: Ledger) -> None:
    ledger.sent({"a": State(3, 0)})
    ledger.refused({"a": State(3, 0)})
    with pytest.raises(Violation):
        ledger.check_whole({"a": State(3, 0)})


def test_a_write_of_unknown_outcome_is_there_wholly_or_not_at_all(ledger: Ledger) -> None:
    write = {"a": State(3, 0), "b": State(3, 0)}
    ledger.sent(write)
    ledger.lost_sight_of(write)
    ledger.check_whole({"a": State(2, 0)})
    ledger.check_whole({"a": State(3, 0), "b": State(3, 0)})
    with pytest.raises(Violation, match="half of a batch"):
        ledger.check_whole({"a": State(3, 0)})
