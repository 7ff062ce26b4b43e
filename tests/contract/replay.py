"""Replays recorded cases against any server that speaks the Chroma v2 API.

    python -m tests.contract.replay http://127.0.0.1:8000 tests/contract/cases/cases.jsonl --skip local_only

Every answer that differs is a line, then come the cases that passed by area. The exit status is 1 when one differed.
"""

import argparse
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import httpx

from tests.contract.case_files import Case, read_cases
from tests.contract.replaying import replay_case

SUMMARY: Final = "Replays recorded cases against a server that speaks the Chroma v2 API."
TIMEOUT_S: Final = 60.0


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m tests.contract.replay", description=(__doc__ or "").splitlines()[0]
    )
    parser.add_argument("base_url", metavar="BASE_URL", help="the server, such as http://127.0.0.1:8000")
    parser.add_argument("file", metavar="FILE", type=Path, help="a file of tests/contract/cases")
    parser.add_argument("--area", metavar="AREAS", type=_areas, help="these areas alone, separated by commas")
    parser.add_argument("--skip", metavar="AREAS", type=_areas, default=frozenset(), help="all areas but these")
    parser.add_argument("-k", metavar="TEXT", dest="text", default="", help="cases alone whose names contain this text")
    options = parser.parse_args(arguments)
    cases = [
        case
        for case in read_cases(options.file)
        if (options.area is None or case.area in options.area)
        and case.area not in options.skip
        and options.text in case.case
    ]
    if not cases:
        parser.error(f"no case of {options.file} is left")
    with httpx.Client(base_url=options.base_url, timeout=TIMEOUT_S, follow_redirects=False) as client:
        return _replay(client, cases)


def _areas(text: str) -> frozenset[str]:
    return frozenset(text.split(","))


def _replay(client: httpx.Client, cases: Sequence[Case]) -> int:
    passed: Counter[str] = Counter()
    for case in cases:
        mismatches = replay_case(client, case)
        passed[case.area] += not mismatches
        for mismatch in mismatches:
            print(f"FAIL {case.name} step {mismatch.step}: {mismatch.reason}")
    for area, count in sorted(Counter(case.area for case in cases).items()):
        print(f"{area:24} {passed[area]}/{count}")
    failed = len(cases) - passed.total()
    print(f"{passed.total()} passed, {failed} failed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
