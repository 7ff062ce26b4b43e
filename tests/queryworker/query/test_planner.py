"""The planner: graph or scan, and how wide a beam."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from queryworker.query.planner import GraphSearch, Plan, Scan, Seen, enough, plan


def _plan(
    rows: int,
    matching: int,
    wanted: int = 10,
    ef_search: int = 100,
    dimension_share: float | None = 1.0,
    seen: Seen | None = None,
    *,
    coded: bool = False,
) -> Plan:
    return plan(
        rows=rows,
        matching=matching,
        wanted=wanted,
        ef_search=ef_search,
        dimension_share=dimension_share,
        coded=coded,
        seen=seen,
    )


def test_an_unfiltered_search_of_a_large_segment_uses_the_graph_with_a_little_more_beam_than_asked_for() -> None:
    assert _plan(60_000, 60_000) == GraphSearch(115)
    assert _plan(60_000, 60_000, wanted=150) == GraphSearch(150)


@pytest.mark.parametrize(("share", "beam"), [(0.99, 119), (0.5, 340), (0.25, 605), (0.2, 705)])
def test_rows_that_do_not_match_widen_the_beam(share: float, beam: int) -> None:
    assert _plan(60_000, round(60_000 * share)) == GraphSearch(beam)


@pytest.mark.parametrize("matching", [1, 60, 600, 2000, 6000])
def test_few_matching_rows_are_scanned(matching: int) -> None:
    assert _plan(60_000, matching, wanted=min(10, matching)) == Scan()


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
    assert _plan(60_000, 60_000, wanted=60_000) == Scan()
    assert _plan(60_000, 59_000, wanted=59_000, ef_search=4_000_000_000) == Scan()


@pytest.mark.parametrize(
    ("seen", "next_beam"),
    [
        (Seen(340, None, 9), 2142),
        (Seen(340, 340, 10), 2086),  # found, but at the edge of the beam
        (Seen(340, None, 3), None),  # hardly anything matches here: no beam that pays would hold ten
        (Seen(340, None, 0), None),
        (Seen(3000, 2500, 12), None),
    ],
)
def test_a_search_that_was_not_enough_is_repeated_as_wide_as_it_showed_to_be_needed(
    seen: Seen, next_beam: int | None
) -> None:
    assert not enough(seen, rows=60_000, wanted=10, ef_search=100)
    assert _plan(60_000, 30_000, seen=seen) == (Scan() if next_beam is None else GraphSearch(next_beam))


def test_what_was_found_well_inside_the_beam_is_enough() -> None:
    assert enough(Seen(115, 10, 115), rows=60_000, wanted=10, ef_search=100)
    assert enough(Seen(340, 25, 80), rows=60_000, wanted=10, ef_search=100)
    assert not enough(Seen(340, 30, 80), rows=60_000, wanted=10, ef_search=100)
    assert enough(Seen(5000, 4900, 10), rows=5000, wanted=10, ef_search=100)


@given(
    st.integers(1, 10**7),
    st.integers(1, 10**7),
    st.integers(1, 2**32),
    st.integers(1, 2**32),
    st.integers(0, 1000),
)
def test_every_plan_is_possible_and_ends(rows: int, matching: int, wanted: int, ef_search: int, near: int) -> None:
    """`near`: how many of a thousand near rows match, whatever share of all does."""
    matching = min(matching, rows)
    wanted = min(wanted, matching)
    chosen, seen = _plan(rows, matching, wanted, ef_search), None
    while isinstance(chosen, GraphSearch):
        assert min(wanted, rows) <= chosen.beam <= rows
        assert seen is None or chosen.beam > seen.beam
        found = chosen.beam * near // 1000
        seen = Seen(chosen.beam, wanted * 1000 // max(near, 1) if found >= wanted else None, found)
        if enough(seen, rows=rows, wanted=wanted, ef_search=ef_search):
            break
        chosen = _plan(rows, matching, wanted, ef_search, seen=seen)
