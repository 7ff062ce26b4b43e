"""The planner: graph or scan, and how wide a beam."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from queryworker.query.planner import BeamOutcome, GraphSearch, Plan, Scan, is_enough, plan


def _plan(
    rows: int,
    matching: int,
    k: int = 10,
    ef_search: int = 100,
    dimension_share: float | None = 1.0,
    outcome: BeamOutcome | None = None,
    *,
    coded: bool = False,
) -> Plan:
    return plan(
        rows=rows,
        matching=matching,
        k=k,
        ef_search=ef_search,
        dimension_share=dimension_share,
        coded=coded,
        outcome=outcome,
    )


def test_an_unfiltered_search_of_a_large_segment_uses_the_graph_with_a_little_more_beam_than_asked_for() -> None:
    assert _plan(60_000, 60_000) == GraphSearch(115)
    assert _plan(60_000, 60_000, k=150) == GraphSearch(150)


@pytest.mark.parametrize(("share", "beam"), [(0.99, 119), (0.5, 340), (0.25, 605), (0.2, 705)])
def test_rows_that_do_not_match_widen_the_beam(share: float, beam: int) -> None:
    assert _plan(60_000, round(60_000 * share)) == GraphSearch(beam)


@pytest.mark.parametrize("matching", [1, 60, 600, 2000, 6000])
def test_few_matching_rows_are_scanned(matching: int) -> None:
    assert _plan(60_000, matching, k=min(10, matching)) == Scan()


def test_a_part_without_a_graph_is_scanned() -> None:
    assert _plan(60_000, 60_000, dimension_share=None) == Scan()


def test_projections_on_fewer_dimensions_make_the_graph_pay_sooner() -> None:
    assert _plan(60_000, 9_000) == Scan()
    assert isinstance(_plan(60_000, 9_000, dimension_share=0.5), GraphSearch)


def test_codes_make_scans_pay_longer() -> None:
    assert isinstance(_plan(60_000, 15_000), GraphSearch)
    assert _plan(60_000, 15_000, coded=True) == Scan()
    assert _plan(60_000, 9_000, dimension_share=0.5, coded=True) == Scan()
    assert isinstance(_plan(60_000, 30_000, coded=True), GraphSearch)
    assert _plan(60_000, 60_000, coded=True) == GraphSearch(115)


def test_asking_for_everything_scans() -> None:
    assert _plan(60_000, 60_000, k=60_000) == Scan()
    assert _plan(60_000, 59_000, k=59_000, ef_search=4_000_000_000) == Scan()


@pytest.mark.parametrize(
    ("outcome", "next_beam"),
    [
        (BeamOutcome(340, None, 9), 2142),
        (BeamOutcome(340, 340, 10), 2086),  # found, but at the edge of the beam
        (BeamOutcome(340, None, 3), None),  # hardly anything matches here: no beam that pays would hold ten
        (BeamOutcome(340, None, 0), None),
        (BeamOutcome(3000, 2500, 12), None),
    ],
)
def test_a_search_that_was_not_enough_is_repeated_as_wide_as_it_showed_to_be_needed(
    outcome: BeamOutcome, next_beam: int | None
) -> None:
    assert not is_enough(outcome, rows=60_000, k=10, ef_search=100)
    assert _plan(60_000, 30_000, outcome=outcome) == (Scan() if next_beam is None else GraphSearch(next_beam))


def test_what_was_found_well_inside_the_beam_is_enough() -> None:
    assert is_enough(BeamOutcome(115, 10, 115), rows=60_000, k=10, ef_search=100)
    assert is_enough(BeamOutcome(340, 25, 80), rows=60_000, k=10, ef_search=100)
    assert not is_enough(BeamOutcome(340, 30, 80), rows=60_000, k=10, ef_search=100)
    assert is_enough(BeamOutcome(5000, 4900, 10), rows=5000, k=10, ef_search=100)


@given(
    st.integers(1, 10**7),
    st.integers(1, 10**7),
    st.integers(1, 2**32),
    st.integers(1, 2**32),
    st.integers(0, 1000),
)
def test_every_plan_is_possible_and_ends(rows: int, matching: int, k: int, ef_search: int, near: int) -> None:
    """`near`: how many of a thousand near rows match, whatever share of all does."""
    matching = min(matching, rows)
    k = min(k, matching)
    chosen, outcome = _plan(rows, matching, k, ef_search), None
    while isinstance(chosen, GraphSearch):
        assert min(k, rows) <= chosen.beam <= rows
        assert outcome is None or chosen.beam > outcome.beam
        found = chosen.beam * near // 1000
        outcome = BeamOutcome(chosen.beam, k * 1000 // max(near, 1) if found >= k else None, found)
        if is_enough(outcome, rows=rows, k=k, ef_search=ef_search):
            break
        chosen = _plan(rows, matching, k, ef_search, outcome=outcome)
