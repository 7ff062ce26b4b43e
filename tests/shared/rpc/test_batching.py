"""How many calls are sent together."""

from __future__ import annotations

import pytest

from shared.rpc.batching import FRAME_S_MAX, BatchSize


def _after(calls: int, *, apart_s: float, frame_s: float) -> BatchSize:
    size = BatchSize()
    for number in range(calls):
        size.call_came(number * apart_s)
        size.frame_answered(frame_s)
    return size


def test_the_first_call_waits_for_nobody() -> None:
    assert _after(1, apart_s=0.0, frame_s=0.001).calls <= 1


def test_a_client_that_asks_one_after_the_other_never_waits() -> None:
    assert _after(100, apart_s=0.0012, frame_s=0.001).calls <= 1


@pytest.mark.parametrize("clients", [4, 16, 64])
def test_a_frame_takes_half_of_those_that_ask_all_the_time(clients: int) -> None:
    """Each of them asks again as soon as it has its answer, which takes as long as a frame."""
    size = _after(300, apart_s=0.004 / clients, frame_s=0.004)
    assert size.calls == pytest.approx(clients / 2, rel=0.01)


def test_who_is_alone_again_soon_stops_waiting() -> None:
    size = _after(100, apart_s=0.0002, frame_s=0.004)
    assert size.calls > 8
    for number in range(20):
        size.call_came(1 + number * 0.005)
        size.frame_answered(0.001)
    assert size.calls <= 1


def test_a_slow_frame_does_not_make_the_next_calls_wait_for_many() -> None:
    size = _after(100, apart_s=0.005, frame_s=0.001)
    size.frame_answered(60.0)
    assert size.calls <= FRAME_S_MAX / 0.005 / 2
