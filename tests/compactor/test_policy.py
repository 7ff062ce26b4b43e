"""Properties of the merge policy over simulated histories."""

from __future__ import annotations

import dataclasses
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from compactor.policy import DEAD_SHARE_MAX, LARGE_BYTES, SIZE_RATIO_LARGEST_MAX, Plan, SegmentStats, plan
from shared.limits import GRAPH_ROWS_MIN

ROW_BYTES = 3400


class Simulated:
    """A shard whose compactions follow the policy, with what they cost."""

    def __init__(self) -> None:
        self.segments: list[SegmentStats] = []
        self.written = 0
        self.inserted_into_graphs = 0
        self.copied = 0
        self.segments_max = 0

    def compact(self, tail_rows: int, deaths: list[int] | None = None) -> Plan:
        """`deaths` kills so many rows of each segment."""
        segments = self.segments
        if deaths:
            segments = [
                dataclasses.replace(segment, dead=min(segment.rows, segment.dead + killed))
                for segment, killed in zip(segments, deaths, strict=True)
            ]
        planned = plan(segments, tail_rows)
        assert sorted([*planned.merged, *planned.kept, *planned.dropped, *extended_of(planned)]) == list(
            range(len(segments))
        )
        kept = [segments[number] for number in planned.kept]
        extended_rows = segments[planned.extended].rows if planned.extended is not None else 0
        extended_dead = segments[planned.extended].dead if planned.extended is not None else 0
        added = tail_rows + sum(segments[number].live for number in planned.merged)
        rows = extended_rows + added
        self.written += tail_rows
        if added:
            graph = rows >= GRAPH_ROWS_MIN
            self.inserted_into_graphs += added if graph else 0
            self.copied += rows
            kept.append(SegmentStats(rows, extended_dead, rows * ROW_BYTES, graph))
        else:
            assert planned.extended is None, "a graph is never copied for nothing"
        self.segments = kept
        self.segments_max = max(self.segments_max, len(kept))
        return planned


def extended_of(planned: Plan) -> list[int]:
    return [] if planned.extended is None else [planned.extended]


def test_nothing_becomes_nothing() -> None:
    assert plan([], 0) == Plan(None, (), (), ())


def test_a_tail_becomes_a_segment_beside_one_that_is_much_larger() -> None:
    assert plan([SegmentStats(100_000, 0, 400_000_000, True)], 10) == Plan(None, (), (0,), ())


def test_a_tail_is_added_to_a_small_segment() -> None:
    assert plan([SegmentStats(100, 0, 100_000, False)], 10) == Plan(None, (0,), (), ())


def test_the_larger_graph_is_extended_by_the_smaller_segment_and_the_tail() -> None:
    segments = [SegmentStats(4000, 5, 13_000_000, True), SegmentStats(3000, 0, 10_000_000, True)]
    assert plan(segments, 1000) == Plan(0, (1,), (), ())


def test_the_largest_segment_is_copied_for_an_eighth_of_its_rows_and_not_for_less() -> None:
    large = SegmentStats(80_000, 0, 2 * LARGE_BYTES, True)
    assert plan([large], 9_999).kept == (0,)
    assert plan([large], 10_000).extended == 0


def test_kills_alone_write_nothing_until_a_quarter_is_dead() -> None:
    segment = SegmentStats(4000, 1000, 10_000_000, True)
    assert plan([segment], 0) == Plan(None, (), (0,), ())
    assert plan([dataclasses.replace(segment, dead=1001)], 0) == Plan(None, (0,), (), ())


def test_a_worn_graph_is_not_extended_but_written_anew() -> None:
    segments = [SegmentStats(100_000, 26_000, 400_000_000, True), SegmentStats(3000, 0, 10_000_000, True)]
    assert plan(segments, 1) == Plan(1, (0,), (), ())


def test_dead_segments_are_dropped_unread() -> None:
    assert plan([SegmentStats(10, 10, 1, False), SegmentStats(5000, 0, 1, True)], 0) == Plan(None, (), (1,), (0,))


@pytest.mark.parametrize("tail_rows", [1, 7, 100, 1000, 3000, 20_000, 61_666])
def test_bulk_loads_insert_each_row_at_most_twice_and_leave_few_segments(tail_rows: int) -> None:
    shard = Simulated()
    for _ in range(min(2000, max(1, 1_000_000 // tail_rows))):
        shard.compact(tail_rows)
    assert shard.inserted_into_graphs <= 2.0 * shard.written
    assert shard.segments_max <= 4
    if shard.written > GRAPH_ROWS_MIN:
        assert max(segment.rows for segment in shard.segments) >= 0.85 * shard.written


@pytest.mark.parametrize("seed", range(5))
def test_loads_of_uneven_batches_stay_within_the_same_bounds(seed: int) -> None:
    rng = random.Random(seed)
    shard = Simulated()
    for _ in range(800):
        shard.compact(int(10 ** rng.uniform(0, 4)))
    assert shard.inserted_into_graphs <= 2.0 * shard.written
    assert shard.copied <= 20 * shard.written
    assert shard.segments_max <= 5


def test_steady_updates_of_a_large_collection_cost_a_bounded_number_of_insertions() -> None:
    shard = Simulated()
    shard.compact(100_000)
    loaded = shard.inserted_into_graphs
    updated = 0
    for _ in range(400):
        biggest = max(range(len(shard.segments)), key=lambda number: shard.segments[number].live)
        deaths = [500 if number == biggest else 0 for number in range(len(shard.segments))]
        updated += 500
        shard.compact(500, deaths)
    assert shard.inserted_into_graphs - loaded <= 6 * updated


tails = st.integers(0, 20_000)
shares_that_die = st.lists(st.floats(0, 0.6), min_size=12, max_size=12)


@settings(max_examples=150, deadline=None)
@given(st.lists(st.tuples(tails, shares_that_die), min_size=1, max_size=40))
def test_any_history_keeps_few_segments_of_falling_size_with_few_dead_rows(
    history: list[tuple[int, list[float]]],
) -> None:
    shard = Simulated()
    for tail_rows, shares in history:
        shard.compact(
            tail_rows, [int(segment.rows * share) for segment, share in zip(shard.segments, shares, strict=False)]
        )
        ascending = sorted(shard.segments, key=lambda segment: segment.live)
        smaller = 0
        for segment in ascending:
            assert segment.live > 0
            assert segment.dead <= DEAD_SHARE_MAX * segment.rows
            assert segment.live > SIZE_RATIO_LARGEST_MAX * smaller
            smaller += segment.live
        assert len(ascending) <= 7


@given(st.lists(st.tuples(st.integers(1, 10_000), st.integers(0, 10_000)), max_size=6), st.integers(0, 100))
def test_of_a_purged_shard_no_dead_row_stays(sizes: list[tuple[int, int]], tail_rows: int) -> None:
    segments = [
        SegmentStats(rows, min(rows, dead), rows * ROW_BYTES, rows >= GRAPH_ROWS_MIN, purged=True)
        for rows, dead in sizes
    ]
    planned = plan(segments, tail_rows)
    assert not [number for number in (*planned.kept, *extended_of(planned)) if segments[number].dead]
