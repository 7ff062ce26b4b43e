"""Reads the recorded request/response cases and the replayer that lies beside them."""

import importlib.util
import json
from collections.abc import Callable, Sequence
from typing import Any, Final

import pytest

from tests.outside.paths import CONTRACT

Case = dict[str, Any]
RunCase = Callable[[Any, Case], list[tuple[int, str]]]

REASON_ABSENT: Final = "the recorded cases (../shared/contract) are not beside this checkout"


def load_run_case() -> RunCase:
    """`run_case(client, case)` of the replayer: (step number, difference) for every step that differs."""
    spec = importlib.util.spec_from_file_location("recorded_replay", CONTRACT / "replay.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    run_case: RunCase = module.run_case
    return run_case


def cases(file_name: str, skipped_areas: frozenset[str] = frozenset()) -> list[Any]:
    """One pytest parameter per case, `area/name`; none at all where the recordings are absent."""
    path = CONTRACT / file_name
    if not path.exists():
        return []
    read = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    return [
        pytest.param(case, id=f"{case['area']}/{case['case']}") for case in read if case["area"] not in skipped_areas
    ]


def explain(case: Case, differences: Sequence[tuple[int, str]]) -> str:
    """Every difference with the request that met it, one per paragraph."""
    lines = [f"{case['area']}/{case['case']}" + (f" ({case['note']})" if case.get("note") else "")]
    for number, difference in differences:
        step = case["steps"][number]
        sent = step.get("body", step.get("raw", step.get("raw_b64", "")))
        lines.append(f"  step {number}: {difference}\n    sent: {json.dumps(sent, ensure_ascii=False)[:600]}")
    return "\n".join(lines)
