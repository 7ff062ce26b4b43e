"""When a shard is due. Pure."""

import pytest

from logservice.scheduling.policy import Policy, ShardBacklog, priority

POLICY = Policy(ops=8000, bytes=64_000_000, quiet_s=0.6, age_s=10.0)


def waiting(ops: int = 1, size: int = 1, age_s: float = 0.1, quiet_s: float = 0.1, exact: bool = True) -> ShardBacklog:
    return ShardBacklog(ops=ops, bytes=size, exact=exact, age_s=age_s, quiet_s=quiet_s)


@pytest.mark.parametrize(
    ("case", "due"),
    [
        (waiting(), False),
        (waiting(ops=7999, size=63_999_999), False),
        (waiting(ops=8000), True),
        (waiting(size=64_000_000), True),
        (waiting(quiet_s=0.59, age_s=9.9), False),
        (waiting(quiet_s=0.6), True),
        (waiting(age_s=10.0, quiet_s=0.0), True),
    ],
)
def test_a_shard_is_due_by_size_by_quiet_or_by_age(case: ShardBacklog, due: bool) -> None:
    assert (priority(case, POLICY) is not None) == due


def test_numbers_that_include_compacted_operations_say_nothing() -> None:
    assert priority(waiting(ops=1_000_000, size=10**10, exact=False), POLICY) is None
    assert priority(waiting(ops=1_000_000, exact=False, quiet_s=1.0), POLICY) is not None


def test_large_backlogs_go_first_and_waiting_outweighs_them_in_the_end() -> None:
    large, small = waiting(ops=80_000), waiting(quiet_s=1.0)
    old = waiting(age_s=200.0)
    first, second, third = (priority(case, POLICY) for case in (old, large, small))
    assert first is not None
    assert second is not None
    assert third is not None
    assert first > second > third


def test_an_age_limit_of_zero_makes_everything_due() -> None:
    assert priority(waiting(), Policy(8000, 64_000_000, 5.0, 0.0)) is not None
