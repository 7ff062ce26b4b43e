"""`make simulate`: runs seeds, and names those that break a promise, with how to repeat them.

python -m tests.simulation [--seeds 200] [--from 1] [--shards-max 3] [--trace LINES] [--digests]
"""

from __future__ import annotations

import argparse
import gc
import os
import sys
import time
import warnings
from collections import Counter
from typing import Final

from tests.simulation.run import Outcome, Simulation

TAIL: Final = 40
"""Lines of the trace that are shown of the first seed that fails."""


def main() -> None:
    options = _options()
    if os.environ.get("PYTHONHASHSEED") != "0":  # sets of text would have another order with every start
        command = [sys.executable, "-m", "tests.simulation", *sys.argv[1:]]
        os.execve(sys.executable, command, {**os.environ, "PYTHONHASHSEED": "0"})
    # What a run cuts off in the middle complains when it is collected.
    warnings.simplefilter("ignore")
    sys.unraisablehook = lambda _complaint: None
    # What was imported stays: the collector, which runs after each seed, needs not look through it again.
    gc.collect()
    gc.freeze()
    began_s, failed, kinds = time.process_time(), list[int](), Counter[str]()
    for seed in range(options.start, options.start + options.seeds):
        outcome = Simulation(seed, shards_max=options.shards_max).run()
        gc.collect()
        if options.digests:
            print(f"{seed} {outcome.digest}", flush=True)
        if outcome.violations:
            failed.append(seed)
            kinds.update({violation.kind for violation in outcome.violations})
            _show(outcome, options.trace or (TAIL if len(failed) == 1 else 0), options.shards_max)
    took_s = time.process_time() - began_s
    print(f"{options.seeds} seeds in {took_s:.0f} s of a core, {options.seeds / took_s:.1f} a second")
    if failed:
        sys.exit(f"{len(failed)} seeds fail: {failed} {dict(kinds)}")


def _show(outcome: Outcome, lines: int, shards_max: int) -> None:
    print(f"seed {outcome.seed} breaks a promise by {outcome.virtual_s:.1f} s:")
    for violation in outcome.violations:
        print(f"    {violation}"[:1000])
    for line in outcome.tail[-lines:] if lines else ():
        print(f"        {line}"[:300])
    again = f"python -m tests.simulation --seeds 1 --from {outcome.seed} --shards-max {shards_max} --trace 200"
    print(f"    again: {again}", flush=True)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.simulation", description="A whole cluster from one seed.")
    parser.add_argument("--seeds", type=int, default=200, help="how many seeds to run (default: 200)")
    parser.add_argument("--from", type=int, default=1, dest="start", help="the first of them (default: 1)")
    parser.add_argument("--shards-max", type=int, default=3, help="the most shards of a collection (default: 3)")
    parser.add_argument("--trace", type=int, default=0, help="show so many lines of the trace of each that fails")
    parser.add_argument("--digests", action="store_true", help="show the hash of each trace")
    return parser.parse_args()


if __name__ == "__main__":
    main()
