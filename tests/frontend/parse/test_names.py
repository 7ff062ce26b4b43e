from __future__ import annotations

import pytest

from frontend.parse.names import check_new_tenant_name
from shared.catalog.names import name_problem
from shared.errors import InvalidArgument

ALPHABET = (
    "Expected a name containing 3-512 characters from [a-zA-Z0-9._-], starting and ending with a character in "
    "[a-zA-Z0-9]. Got: "
)


@pytest.mark.parametrize("name", ["abc", "a.b", "a-_b", "1.2.3", "999.1.1.1", "0x1", "A" * 512, "abc+def", "Abc"])
def test_these_names_are_fine(name: str) -> None:
    assert name_problem(name) is None


@pytest.mark.parametrize("name", ["", "ab", "a" * 513, "_ab", "ab-", "a b", "a/b", "a#b", "abc\n", "äbc", "a\u0660b"])
def test_length_alphabet_and_ends_come_first(name: str) -> None:
    assert name_problem(name) == ALPHABET + name


def test_two_periods_in_a_row_are_refused_before_an_address() -> None:
    assert name_problem("1..2") == "Expected a name that does not contains two consecutive periods (..). Got 1..2"


def test_an_address_is_refused() -> None:
    assert name_problem("1.2.3.4") == "Expected a name that is not a valid ip address. Got 1.2.3.4"


def test_each_half_around_a_plus_is_a_name() -> None:
    assert name_problem("ab+cde") == ALPHABET + "ab"
    assert name_problem("abc+1.2.3.4") == "Expected a name that is not a valid ip address. Got 1.2.3.4"


def test_two_pluses_are_refused_before_anything_else() -> None:
    assert name_problem("+ +") == "Expected a name to contain at most one topology:  Got two `+` characters."


def test_a_tenant_may_be_called_anything_of_three_characters() -> None:
    check_new_tenant_name("t /")
    check_new_tenant_name("日本語")
    with pytest.raises(InvalidArgument, match=r"^Validation error: name: Validation error: length \["):
        check_new_tenant_name("日本")
