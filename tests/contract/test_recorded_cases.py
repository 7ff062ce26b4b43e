"""Every recorded exchange with a real Chroma server, replayed (docs/wire.md).

Not replayed: what only a single-node server does (`local_only`, `local_quirks`) and the one case that needs reset
switched off. The server has no embedding function, so that texts without embeddings are refused as by Chroma's.
"""

import httpx
import pytest

from tests.contract.case_files import Case
from tests.contract.recorded import cases, explain
from tests.contract.replaying import replay_case

SKIPPED_AREAS = frozenset({"local_only", "local_quirks", "reset_disabled"})


@pytest.mark.parametrize("case", cases("cases.jsonl", SKIPPED_AREAS))
def test_answers_as_chroma_did(plain_client: httpx.Client, case: Case) -> None:
    mismatches = replay_case(plain_client, case)
    assert not mismatches, explain(case, mismatches)


@pytest.mark.parametrize("case", cases("cases_options.jsonl"))
def test_answers_as_chroma_did_with_reset_and_cors_switched_on(cors_client: httpx.Client, case: Case) -> None:
    mismatches = replay_case(cors_client, case)
    assert not mismatches, explain(case, mismatches)


@pytest.mark.parametrize("case", cases("cases_derived.jsonl"))
def test_answers_as_the_hosted_service_is_said_to(plain_client: httpx.Client, case: Case) -> None:
    mismatches = replay_case(plain_client, case)
    assert not mismatches, explain(case, mismatches)
