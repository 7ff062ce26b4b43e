"""What the plots show, and that the same results give the same file."""

from pathlib import Path

import pytest

from bench.series import CHROMA, HNSWLIB, POLYCHROME, Series
from tests.bench.test_series import results

pytest.importorskip("matplotlib")

from bench import plots

MEASURED = results(
    Series("real", "ef_search 10", "recall", {CHROMA: [0.8], POLYCHROME: [0.9], HNSWLIB: [0.85]}),
    Series("real", "ef_search 10", "p50_ms", {CHROMA: [3.0], POLYCHROME: [1.0], HNSWLIB: [0.2]}, clients=1),
    part="beams",
)


def test_a_beam_is_a_point_of_each_who_took_part() -> None:
    assert plots.recall_points(MEASURED) == {
        CHROMA: [(0.8, 3.0)],
        POLYCHROME: [(0.9, 1.0)],
        HNSWLIB: [(0.85, 0.2)],
    }


def test_the_same_results_give_the_same_plots(tmp_path: Path) -> None:
    for name in ("one", "other"):
        (tmp_path / name).mkdir()
        plots.draw(MEASURED, tmp_path / name)
    for file in (plots.RECALL_FILE, plots.CONCURRENCY_FILE):
        assert (tmp_path / "one" / file).read_bytes() == (tmp_path / "other" / file).read_bytes()
