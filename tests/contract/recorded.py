"""The recorded cases as parameters of tests, and what a failed one shows."""

import json
from collections.abc import Collection, Sequence
from typing import Any

import msgspec
import pytest

from tests.contract.case_files import CASES, Case, Step, read_cases
from tests.contract.replaying import Mismatch

BODY_CHARACTERS_MAX = 600


def cases(file_name: str, skipped_areas: Collection[str] = ()) -> list[Any]:
    """One parameter per case of a file, named `area/case`."""
    found = [case for case in read_cases(CASES / file_name) if case.area not in skipped_areas]
    return [pytest.param(case, id=case.name) for case in found]


def explain(case: Case, mismatches: Sequence[Mismatch]) -> str:
    """Every mismatch with the body that was sent, one per paragraph."""
    title = case.name + (f" ({case.note})" if case.note else "")
    told = [f"  step {one.step}: {one.reason}\n    sent: {_sent(case.steps[one.step])}" for one in mismatches]
    return "\n".join((title, *told))


def _sent(step: Step) -> str:
    text = step.raw if step.body is msgspec.UNSET else json.dumps(step.body, ensure_ascii=False)
    return (text or step.raw_b64 or "")[:BODY_CHARACTERS_MAX]
