"""`python -m bench`: both servers, one run, one table."""

import argparse
import os
import sys
import tempfile
import time
from pathlib import Path

from bench.data import Dataset, debian, synthetic
from bench.load import generator
from bench.report import machine, table
from bench.servers import chroma, polychrome
from bench.suite import Effort, Suite

DATA = Path(__file__).resolve().parents[2] / "shared" / "data"
QUICK = Effort(runs=1, seconds=1.0, ingest_rows=4000, upserts=100)
FULL = Effort(runs=3, seconds=3.0, ingest_rows=10_000, upserts=500)
QUICK_ROWS = 5000


def main() -> None:
    options = _options()
    effort = QUICK if options.quick else FULL
    dataset = _dataset(options)
    began_s, load_before = time.monotonic(), os.getloadavg()[0]
    with (
        tempfile.TemporaryDirectory(prefix="bench-", dir=options.directory) as directory,
        generator() as load,
        chroma(options.chroma, Path(directory) / "chroma") as theirs,
        polychrome(Path(directory) / "polychrome", options.up) as ours,
    ):
        print(f"{theirs.name} at {theirs.url}, {ours.name} at {ours.url}, {len(dataset):,} rows", file=sys.stderr)
        figures = Suite((theirs, ours), load, dataset, effort).run()
    text = (
        f"{dataset.name}: {len(dataset):,} rows of {dataset.vectors.shape[1]} dimensions; {machine()};"
        f" load average {load_before:.1f} at the start; medians of {effort.runs} runs;"
        f" {time.monotonic() - began_s:.0f} s in all\n\n{table(figures)}\n"
    )
    print(text)
    if options.output is not None:
        options.output.write_text(text, encoding="utf-8")


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench", description="Polychrome beside a real Chroma server.")
    parser.add_argument("--rows", type=int, default=None, help="only the first so many rows")
    parser.add_argument("--quick", action="store_true", help=f"one short run of everything on {QUICK_ROWS:,} rows")
    parser.add_argument("--data", type=Path, default=DATA, help="folder of the Debian catalogue")
    parser.add_argument("--synthetic", action="store_true", help="made-up rows instead of the catalogue")
    parser.add_argument("--chroma", type=Path, default=Path(sys.executable).with_name("chroma"), help="the program")
    parser.add_argument(
        "--directory", type=Path, default=None, help="where the servers keep their data (default: /tmp)"
    )
    parser.add_argument("--output", type=Path, default=None, help="write the table there too")
    parser.add_argument("up", nargs="*", help="after --: options for `polychrome up`")
    return parser.parse_args()


def _dataset(options: argparse.Namespace) -> Dataset:
    rows = options.rows or (QUICK_ROWS if options.quick else None)
    if options.synthetic:
        return synthetic(rows or 60_000, dimension=384)
    if not (options.data / "debian-packages.parquet").exists():
        sys.exit(
            f"no debian-packages.parquet in {options.data}: name its folder with --data, or ask for --synthetic rows"
        )
    return debian(options.data, rows)


if __name__ == "__main__":
    main()
