"""Medians, ratios, and what is kept on disk."""

from pathlib import Path

import pytest

from bench.series import CHROMA, POLYCHROME, PartResult, Results, Series


def series(quantity: str = "per_s", theirs: float = 10.0, ours: float = 40.0, line: str = "count") -> Series:
    return Series("real", line, quantity, {CHROMA: [theirs], POLYCHROME: [ours]}, clients=16)


def results(*measured: Series, part: str = "gets", error: str | None = None) -> Results:
    return Results({part: PartResult("2026-01-01 00:00", "full", "abc", 1.0, {"real": "rows"}, list(measured), error)})


def test_of_several_runs_the_median_counts() -> None:
    assert Series("real", "count", "per_s", {CHROMA: [1.0, 900.0, 3.0]}).median(CHROMA) == 3.0


def test_who_took_no_part_has_no_median() -> None:
    assert Series("real", "count", "per_s", {CHROMA: [1.0]}).median(POLYCHROME) is None
    assert Series("real", "count", "per_s", {CHROMA: [1.0]}).times_better() is None


def test_more_throughput_and_less_latency_are_both_better() -> None:
    assert series("per_s", theirs=10.0, ours=40.0).times_better() == 4.0
    assert series("p50_ms", theirs=10.0, ours=40.0).times_better() == 0.25


def test_an_unknown_quantity_is_refused() -> None:
    with pytest.raises(ValueError, match="no quantity 'speed'"):
        series("speed")


def test_what_was_measured_survives_the_disk(tmp_path: Path) -> None:
    written = results(series(), series("p50_ms"), error="one failed")
    written.write(tmp_path / "results.json")
    assert Results.read(tmp_path / "results.json") == written


def test_without_a_file_there_are_no_results(tmp_path: Path) -> None:
    assert Results.read(tmp_path / "none.json").parts == {}


def test_a_series_is_found_by_line_quantity_and_clients() -> None:
    found = results(series(), series("p50_ms")).find("real", "count", "p50_ms", 16)
    assert found is not None
    assert found.quantity == "p50_ms"
    assert results(series()).find("real", "count", "per_s", 1) is None
