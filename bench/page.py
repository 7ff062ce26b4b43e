"""Writes the page and its plots from results."""

import os
import platform
from importlib.metadata import version
from pathlib import Path

from bench import plots
from bench.fairness_report import PART
from bench.report import fairness_table, page, target_table
from bench.series import Results


def write(results: Results, directory: Path, simulation: Path) -> str:
    """`benchmarks.md` and the plots in the directory. `simulation`: a section's text, when it has been made. Returns
    what to print.
    """
    method = Path(__file__).with_name("method.md").read_text(encoding="utf-8")
    directory.mkdir(parents=True, exist_ok=True)
    simulated = simulation.read_text(encoding="utf-8") if simulation.exists() else ""
    plots.draw(results, directory)
    (directory / "benchmarks.md").write_text(page(results, machine(), method, simulated), encoding="utf-8")
    failed = [f"{name}: {part.error}" for name, part in results.parts.items() if part.error]
    fairness = [fairness_table(results)] if PART in results.parts else []
    return "\n\n".join([target_table(results), *fairness, *failed])


def machine() -> str:
    """Where the figures were measured, and with what."""
    lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    models = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    kib = int(Path("/proc/meminfo").read_text(encoding="utf-8").split()[1])
    return (
        f"{os.cpu_count()} x {models[0] if models else platform.machine()}, {kib / 2**20:.0f} GiB,"
        f" Python {platform.python_version()}, Chroma {version('chromadb')}"
    )
