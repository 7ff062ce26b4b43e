import pytest
from hypothesis import given
from hypothesis import strategies as st

from queryworker.planner import GraphSearch, Scan, plan


def _plan(rows: int, matching: int, wanted: int = 10, ef_search: int = 100, graph: bool = True, tried: int = 0):
    return plan(rows=rows, matching=matching, wanted=wanted, ef_search=ef_search, graph=graph, tried=tried)


def test_an_unfiltered_search_of_a_large_segment_uses_the_graph_with_a_little_more_beam_than_asked_for() -> None:
    assert _plan(60_000, 60_000) == GraphSearch(110)
    assert _plan(60_000, 60_000, wanted=150) == GraphSearch(150)


def test_deleted_rows_widen_the_beam_by_their_share() -> None:
    assert _plan(60_000, 30_000) == GraphSearch(220)


@pytest.mark.parametrize("matching", [1, 60, 600])
def test_few_matching_rows_are_scanned(matching: int) -> None:
    assert _plan(60_000, matching, wanted=min(10, matching)) == Scan()


def test_a_part_without_a_graph_is_scanned() -> None:
    assert _plan(60_000, 60_000, graph=False) == Scan()


def test_asking_for_everything_scans() -> None:
    assert _plan(60_000, 60_000, wanted=60_000) == Scan()
    assert _plan(60_000, 59_000, wanted=59_000, ef_search=4_000_000_000) == Scan()


def test_a_search_that_came_back_short_is_widened_until_scanning_is_cheaper() -> None:
    beams, tried = [], 0
    while isinstance(step := _plan(60_000, 40_000, tried=tried), GraphSearch):
        beams.append(tried := step.beam)
    assert beams == [165, 660, 2640]


@given(
    st.integers(1, 10**7),
    st.integers(1, 10**7),
    st.integers(1, 2**32),
    st.integers(1, 2**32),
    st.integers(0, 10**7),
)
def test_every_plan_is_possible_and_widening_ends(
    rows: int, matching: int, wanted: int, ef_search: int, tried: int
) -> None:
    matching = min(matching, rows)
    wanted = min(wanted, matching)
    chosen = _plan(rows, matching, wanted, ef_search, tried=tried)
    if isinstance(chosen, GraphSearch):
        assert wanted <= chosen.beam <= rows or tried
        assert chosen.beam > tried
