"""The memory budget for answers that are read."""

from __future__ import annotations

from shared.rpc.answer_budget import GRANT_BYTES_MIN, WINDOW_BYTES, WINDOW_BYTES_MIN, AnswerBudget

GRANT = GRANT_BYTES_MIN


class Waiter:
    """A reader that takes what it is given when it is resumed, unless it has lost interest."""

    def __init__(self, budget: AnswerBudget, size: int = GRANT) -> None:
        self.budget = budget
        self.size = size
        self.taken = 0
        self.interested = True

    def take(self) -> int:
        granted = self.budget.take(self, self.size)
        self.taken += granted
        return granted

    def resume(self) -> None:
        if self.interested:
            self.take()


def test_readers_get_what_there_is_and_the_rest_later_in_their_order() -> None:
    budget = AnswerBudget(3 * GRANT)
    first, second, third = Waiter(budget, 2 * GRANT), Waiter(budget, 2 * GRANT), Waiter(budget)
    assert (first.take(), second.take(), third.take()) == (2 * GRANT, GRANT, 0)
    assert second.take() == 0
    budget.give_back(GRANT)
    assert (second.taken, third.taken) == (GRANT, GRANT)
    budget.give_back(2 * GRANT)
    assert second.taken == 3 * GRANT
    assert budget.held == 3 * GRANT


def test_who_waits_is_not_overtaken() -> None:
    budget = AnswerBudget(2 * GRANT)
    first, waiting, late = Waiter(budget, 2 * GRANT), Waiter(budget, 2 * GRANT), Waiter(budget)
    assert (first.take(), waiting.take()) == (2 * GRANT, 0)
    budget.count(-GRANT)  # as if there were room that no one has been told of
    assert late.take() == 0
    budget.give_back(0)
    assert (waiting.taken, late.taken) == (GRANT, 0)


def test_little_is_not_granted_unless_nothing_is_held() -> None:
    budget = AnswerBudget(GRANT + 10)
    first, second = Waiter(budget), Waiter(budget)
    assert (first.take(), second.take()) == (GRANT, 0)
    tiny = AnswerBudget(10)
    assert Waiter(tiny).take() == 10


def test_a_reader_that_went_away_holds_up_nobody() -> None:
    budget = AnswerBudget(GRANT)
    first, gone, uninterested, last = (Waiter(budget) for _ in range(4))
    budget.open(0)
    first.take()
    for waiter in (gone, uninterested, last):
        waiter.take()
    budget.close(gone, 0)
    uninterested.interested = False
    budget.give_back(GRANT)
    assert (gone.taken, uninterested.taken, last.taken) == (0, 0, GRANT)


def test_what_is_there_already_is_counted_though_it_is_too_much() -> None:
    budget = AnswerBudget(GRANT)
    budget.count(5 * GRANT)
    waiting = Waiter(budget)
    assert waiting.take() == 0
    budget.give_back(4 * GRANT)
    assert waiting.taken == 0
    budget.give_back(GRANT)
    assert waiting.taken == GRANT


def test_the_more_readers_there_are_the_less_each_may_hold() -> None:
    budget = AnswerBudget(64 * WINDOW_BYTES)
    windows = []
    for _ in range(200):
        budget.open(0)
        windows.append(budget.window)
    assert windows[:8] == [WINDOW_BYTES] * 8
    assert windows[15] == WINDOW_BYTES // 2
    assert windows[63:] == [WINDOW_BYTES_MIN] * len(windows[63:])
    assert sum(windows) < budget.bytes_max
    for _ in range(200):
        budget.close(Waiter(budget), 0)
    assert budget.window == WINDOW_BYTES
