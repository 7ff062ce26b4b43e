"""The page as it is written: with what links to the plots, and with what failed."""

from pathlib import Path

import pytest

from tests.bench.test_series import results, series

pytest.importorskip("matplotlib")

from bench import page, plots


def test_the_page_comes_with_its_plots(tmp_path: Path) -> None:
    (tmp_path / "simulation.md").write_text("| a table |\n")
    printed = page.write(results(series(), error="it broke"), tmp_path / "docs", tmp_path / "simulation.md")
    text = (tmp_path / "docs" / "benchmarks.md").read_text()
    for plot in (plots.RECALL_FILE, plots.CONCURRENCY_FILE):
        assert f"]({plot})" in text
        assert (tmp_path / "docs" / plot).exists()
    assert "| a table |" in text
    assert "gets: it broke" in printed
