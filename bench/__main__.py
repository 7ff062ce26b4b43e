"""`python -m bench [parts]`: part after part, results merged with those of earlier runs, the page written."""

import argparse
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from bench import page
from bench.programme import PARTS, STAGES, Part, StagePlan, chosen
from bench.series import PartResult, Results, Series
from bench.stage import FULL, QUICK, Scale, Setting, Stage, say, stage
from deploy import real_data

ROOT: Final = Path(__file__).resolve().parents[1]
BUILD: Final = ROOT / "build" / "bench"


def main() -> None:
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that the servers end with us
    options = _options()
    scale = _scale(options)
    setting = Setting(scale, None if options.alone else options.chroma, options.directory, BUILD, options.up)
    results_path = BUILD / f"{scale.name}.json"
    run = Run(setting, options, Results.read(results_path), results_path)
    target = ROOT / "docs" if scale is FULL else BUILD / scale.name
    for plan, parts in chosen(options.parts):
        run.stage(plan, parts)
        page.write(run.results, target, BUILD / "simulation.md")  # who stops early has what there is
    print(page.write(run.results, target, BUILD / "simulation.md"))
    sys.exit(1 if run.failed else 0)


class Run:
    """Does the parts; what fails is noted, and the rest goes on. Results are on disk after each part."""

    def __init__(self, setting: Setting, options: argparse.Namespace, results: Results, path: Path) -> None:
        self.results = results
        self.failed = False
        self._setting = setting
        self._options = options
        self._path = path

    def stage(self, plan: StagePlan, parts: Sequence[Part]) -> None:
        left = list(parts)
        try:
            say(f"{plan.name}: {', '.join(part.name for part in parts)}")
            dataset = plan.dataset(self._setting.scale, self._options.data)
            with_chroma = plan.with_chroma or self._options.chroma_at_a_million
            with stage(self._setting, dataset, filled=plan.filled, with_chroma=with_chroma) as opened:
                while left:
                    self._part(left[0], opened)
                    left.pop(0)
                    opened.revive()
        except Exception as error:  # the other stages go on
            for part in left:
                self._note(part, 0.0, [], f"the stage failed: {_text(error)}")

    def _part(self, part: Part, opened: Stage) -> None:
        say(f" {part.name} ({opened.scale.name})")
        began_s = time.monotonic()
        series: list[Series] = []
        error = None
        try:
            series.extend(part.measure(opened))
        except Exception as failure:  # the other parts go on, and what was measured is kept
            ends = [
                f"\n{server.name} ended; its log:\n{server.log_end()}" for server in opened.servers if server.ended()
            ]
            error = _text(failure) + "".join(ends)
        datasets = {data.key: f"{len(data):,} rows: {data.title}" for data in (opened.dataset, *opened.others)}
        self._note(part, time.monotonic() - began_s, series, error, datasets)

    def _note(
        self, part: Part, took_s: float, series: list[Series], error: str | None, datasets: dict[str, str] | None = None
    ) -> None:
        when = datetime.now(UTC).strftime("%Y-%m-%d %H:%M")
        scale = self._setting.scale.name
        result = PartResult(when, scale, _commit(), took_s, datasets or {}, series, error)
        if error is not None:
            self.failed = True
            say(f" {part.name} FAILED: {error}")
        self.results.parts[part.name] = result
        self.results.parts = {name: self.results.parts[name] for name in PARTS if name in self.results.parts}
        self.results.write(self._path)
        say(f" {part.name}: {took_s:.0f} s")


def _text(error: Exception) -> str:
    return "".join(traceback.format_exception(error, limit=-4))[-3000:]


def _commit() -> str:
    done = subprocess.run(
        ("git", "rev-parse", "--short", "HEAD"), cwd=ROOT, capture_output=True, text=True, check=False
    )
    return done.stdout.strip() or "unknown"


def _scale(options: argparse.Namespace) -> Scale:
    """The scale that was chosen. Results of another scale than the full one stay apart."""
    changed = {key: value for key in ("runs", "ingest_runs", "seconds") if (value := getattr(options, key)) is not None}
    scale = QUICK if options.quick else FULL
    return replace(scale, name=f"{scale.name}-tried", **changed) if changed else scale


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench", description="Polychrome beside a real Chroma server.")
    parser.add_argument(
        "parts", nargs="*", metavar="part", help=f"all, or of: {' '.join(PARTS)}; or stages: {' '.join(STAGES)}"
    )
    parser.add_argument("--quick", action="store_true", help="little data, one short run; the page stays in build/")
    parser.add_argument("--runs", type=int, help="instead of the number of the scale; the page stays in build/ then")
    parser.add_argument("--ingest-runs", type=int, help="likewise")
    parser.add_argument("--seconds", type=float, help="likewise")
    parser.add_argument("--page-only", dest="parts", action="store_const", const=["page"], help="from earlier results")
    parser.add_argument("--alone", action="store_true", help="without Chroma")
    parser.add_argument("--chroma-at-a-million", action="store_true", help="fill Chroma with the large dataset, too")
    parser.add_argument("--data", type=Path, default=real_data.DIRECTORY, help="folder of the Debian catalogue")
    parser.add_argument("--chroma", type=Path, default=Path(sys.executable).with_name("chroma"), help="the program")
    parser.add_argument("--directory", type=Path, default=None, help="where servers keep their data (default: /tmp)")
    parser.add_argument(
        "--up", nargs="*", default=[], help="options for `polychrome up`, without their dashes in front"
    )
    return parser.parse_args()


if __name__ == "__main__":
    main()
