"""Which headers are which credential."""

from __future__ import annotations

import base64

import pytest

from frontend.access.credentials import CREDENTIAL_LENGTH_MAX, Password, Token, credential_of
from shared.errors import Unauthenticated


def basic(text: str) -> str:
    return "Basic " + base64.b64encode(text.encode()).decode()


@pytest.mark.parametrize(
    ("authorization", "chroma_token", "credential"),
    [
        (["Bearer abc"], [], Token("abc")),
        (["bearer  abc "], [], Token("abc")),
        ([], ["abc"], Token("abc")),
        (["Bearer abc"], ["abc"], Token("abc")),
        ([basic("me:pass:word")], [], Password("me", "pass:word")),
        ([basic("me:")], [], Password("me", "")),
    ],
)
def test_each_header_of_the_official_clients_is_understood(
    authorization: list[str], chroma_token: list[str], credential: Token | Password
) -> None:
    assert credential_of(authorization, chroma_token) == credential


@pytest.mark.parametrize(
    ("authorization", "chroma_token", "problem"),
    [
        ([], [], "required"),
        (["Bearer abc"], ["abd"], "contradict"),
        (["Bearer abc", "Bearer abd"], [], "contradict"),
        ([basic("me:x")], ["abc"], "contradict"),
        ([], ["abc", "abd"], "contradict"),
        (["abc"], [], "neither"),
        (["Digest abc"], [], "neither"),
        (["Bearer "], [], "malformed"),
        (["Bearer a b"], [], "malformed"),
        (["Bearer ä"], [], "malformed"),
        ([], [""], "malformed"),
        ([], ["a" * (CREDENTIAL_LENGTH_MAX + 1)], "malformed"),
        (["Basic abc"], [], "malformed"),
        (["Basic \u00e4\udcff"], [], "malformed"),
        ([basic("nocolon")], [], "malformed"),
        ([basic(":nobody")], [], "malformed"),
        (["Basic " + base64.b64encode(b"\xff:x").decode()], [], "malformed"),
    ],
)
def test_what_is_missing_malformed_or_contradicts_itself_is_refused(
    authorization: list[str], chroma_token: list[str], problem: str
) -> None:
    with pytest.raises(Unauthenticated, match=problem):
        credential_of(authorization, chroma_token)


def test_a_credential_is_not_shown() -> None:
    assert "abc" not in repr(Token("abc"))
    assert "abc" not in repr(Password("me", "abc"))
