"""Answers that are to depart from Chroma's for users' sake (docs/wire.md, section 21).

They come one by one. A case that the server answers as planned is a test like all others; those that it does not are
in NOT_SERVED, and nowhere else.
"""

import httpx
import pytest

from tests.contract.case_files import CASES, Case, read_cases
from tests.contract.recorded import cases, explain
from tests.contract.replaying import replay_case

FILE = "cases_users.jsonl"

NOT_SERVED = frozenset(
    {
        "empty_embeddings_in_update_are_absent",
        "empty_where_in_get_is_no_filter",
        "error_names_the_operator_of_a_bad_filter",
        "error_names_the_row_and_key_of_bad_metadata",
        "group_by_with_wrong_members_is_refused",
        "in_empty_matches_nothing",
        "in_mixes_integers_and_floats",
        "integers_beyond_int64_are_refused",
        "legacy_spelling_in_configuration_is_understood",
        "two_operators_are_a_range",
        "update_with_only_unknown_members_is_refused",
    }
)


@pytest.mark.parametrize("case", cases(FILE))
def test_answers_as_planned_unless_the_case_is_listed(plain_client: httpx.Client, case: Case) -> None:
    mismatches = replay_case(plain_client, case)
    if case.case in NOT_SERVED:
        assert mismatches, f"{case.case} is served now: take it off NOT_SERVED and say so in docs/wire.md"
    else:
        assert not mismatches, explain(case, mismatches)


def test_the_list_names_cases_that_exist() -> None:
    assert {case.case for case in read_cases(CASES / FILE)} >= NOT_SERVED
