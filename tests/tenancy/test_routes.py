"""Every route by every kind of key: refused, hidden, denied or answered as the access table and its scope say."""

from __future__ import annotations

import time
import uuid
from typing import Any

import httpx
import pytest

from frontend.access.access_table import TABLE, About, Access
from shared.tenancy.actions import READ_ACTIONS, Role
from shared.tenancy.api_keys import draw_key
from tests.access_page import least_role
from tests.tenancy.keyring import Keyring, Place, body_of, furnished, path_of

GUARDED = [row for row in TABLE if row[2].about is not About.NOTHING]
IN_A_TENANT = {About.TENANT, About.DATABASE, About.COLLECTION, About.NAMED_COLLECTION}
NAMES = [f"{method} {pattern}" for method, pattern, _ in GUARDED]

IN_A_COLLECTION = {About.COLLECTION, About.NAMED_COLLECTION}

every_route = pytest.mark.parametrize(("method", "pattern", "access"), GUARDED, ids=NAMES)


def routes_about(*about: About) -> pytest.MarkDecorator:
    """The routes whose path names such a thing."""
    rows = [row for row in GUARDED if row[2].about in about]
    names = [f"{method} {pattern}" for method, pattern, _ in rows]
    return pytest.mark.parametrize(("method", "pattern", "access"), rows, ids=names)


def told(answer: httpx.Response, *names: str) -> tuple[int, Any]:
    """The status and the body, without names that were sent."""
    text = answer.text
    for name in names:
        text = text.replace(f"[{name}]", "<name>")
    return answer.status_code, text


def asked(keyring: Keyring, key: str | None, method: str, pattern: str, place: Place, **changes: str) -> httpx.Response:
    return keyring.ask(key, method, path_of(pattern, place, **changes), body_of(method, pattern))


@pytest.fixture(scope="module")
def refused(keyring: Keyring, place: Place) -> dict[str, str | None]:
    """Credentials that do not hold, by what is wrong with them. (Expiry is waited for.)"""
    expired = keyring.key(place.tenant, "admin", expires_in_s=0.05)
    revoked = keyring.key(place.tenant, "admin")
    assert keyring.ask(revoked, "GET", "/api/v2/auth/identity").status_code == 200
    keyring.revoke(revoked)
    mistyped = keyring.key(place.tenant, "admin")
    deadline = time.monotonic() + 10
    while keyring.ask(revoked, "GET", "/api/v2/auth/identity").status_code == 200:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    return {
        "none": None,
        "expired": expired,
        "revoked": revoked,
        "mistyped": mistyped[:-1] + ("0" if mistyped[-1] != "0" else "1"),
        "unknown": draw_key().text,
        "word": "None",  # what CloudClient sends when nothing but its environment has the key
    }


@every_route
def test_a_route_needs_a_credential_that_holds(
    keyring: Keyring, place: Place, refused: dict[str, str | None], method: str, pattern: str, access: Access
) -> None:
    kinds = list(refused)
    for kind in ("none", kinds[1 + NAMES.index(f"{method} {pattern}") % (len(kinds) - 1)]):
        answer = keyring.ask_from_elsewhere(refused[kind], method, path_of(pattern, place), body_of(method, pattern))
        assert answer.status_code == 401, kind
        assert answer.json()["error"] == "AuthorizationError"
        assert answer.headers["www-authenticate"] == "Bearer"


def test_each_kind_of_bad_credential_is_refused(keyring: Keyring, refused: dict[str, str | None]) -> None:
    for kind, key in refused.items():
        assert keyring.ask_from_elsewhere(key, "GET", "/api/v2/auth/identity").status_code == 401, kind


@routes_about(*IN_A_TENANT, About.CRN)
def test_another_tenants_things_answer_as_if_they_were_not_there(
    keyring: Keyring, place: Place, other: Place, admin: str, method: str, pattern: str, access: Access
) -> None:
    missing = str(uuid.uuid4())
    strange = {"tenant": f"tenant-{missing[:8]}", "crn": f"resource-{missing[:8]}:main:items"}
    hidden = asked(keyring, admin, method, pattern, other)
    absent = asked(keyring, admin, method, pattern, place, **strange, collection_id=missing)
    assert hidden.status_code not in (401, 403)
    of_other = told(hidden, other.crn, other.tenant, other.collection_id)
    assert of_other == told(absent, strange["crn"], strange["tenant"], missing)


@pytest.fixture(scope="module")
def admin(keyring: Keyring, place: Place) -> str:
    return keyring.key(place.tenant, "admin")


@pytest.fixture(scope="module")
def bound(keyring: Keyring, place: Place) -> str:
    """A key that is bound to another collection of the same database."""
    made = keyring.do("POST", f"{place.database_path}/collections", {"name": "elsewhere", "get_or_create": True})
    return keyring.key(place.tenant, "admin", databases=["main"], collections=[made["id"]])


@routes_about(*IN_A_COLLECTION, About.CRN)
def test_another_collection_answers_as_if_it_was_not_there(
    keyring: Keyring, place: Place, bound: str, method: str, pattern: str, access: Access
) -> None:
    missing = str(uuid.uuid4())
    strange = {"collection_id": missing, "name": missing, "crn": f"resource-{place.tenant}:main:{missing}"}
    of_id = {"name": place.collection_id} if access.id_param == "name" else {}
    hidden = asked(keyring, bound, method, pattern, place, **of_id)
    absent = asked(keyring, bound, method, pattern, place, **strange)
    assert hidden.status_code not in (200, 201, 401, 403)
    of_place = told(hidden, place.crn, place.collection_id, place.name)
    assert of_place == told(absent, strange["crn"], missing)


@pytest.fixture(scope="module")
def reader(keyring: Keyring, place: Place) -> str:
    return keyring.key(place.tenant, "read")


@every_route
def test_a_reader_is_denied_what_is_not_reading_and_nothing_else(
    keyring: Keyring, place: Place, reader: str, method: str, pattern: str, access: Access
) -> None:
    answer = asked(keyring, reader, method, pattern, place)
    if least_role(access) is Role.READ:
        assert answer.status_code not in (401, 403), answer.text
    else:
        assert (answer.status_code, answer.json()["error"]) == (403, "AuthError")
        assert not access.actions <= READ_ACTIONS or not access.any_of <= READ_ACTIONS


@every_route
def test_a_writer_writes_and_is_denied_what_is_the_tenants(
    keyring: Keyring, method: str, pattern: str, access: Access, writable: tuple[Place, str]
) -> None:
    place, writer = writable
    answer = asked(keyring, writer, method, pattern, place)
    if least_role(access) in (Role.READ, Role.WRITE):
        assert answer.status_code not in (401, 403), answer.text
    else:
        assert (answer.status_code, answer.json()["error"]) == (403, "AuthError")


@pytest.fixture(scope="module")
def writable(keyring: Keyring) -> tuple[Place, str]:
    """A place of its own: what may be deleted is."""
    place = furnished(keyring)
    return place, keyring.key(place.tenant, "write")


def test_what_anyone_may_ask_needs_no_credential(keyring: Keyring) -> None:
    for method, pattern, access in TABLE:
        if access.about is About.NOTHING and method == "GET" and "{" not in pattern:
            for key in (None, "nonsense"):
                assert keyring.ask(key, method, pattern).status_code in (200, 303), pattern


def test_an_unknown_path_is_404_for_everybody(keyring: Keyring) -> None:
    assert keyring.ask(None, "GET", "/api/v2/nothing").status_code == 404
    assert keyring.ask(None, "PATCH", "/api/v2/auth/identity").status_code == 405


def test_no_body_is_read_before_the_credential(keyring: Keyring, place: Place) -> None:
    answer = keyring.client.post(place.path + "/add", content=b"{", headers={"content-type": "text/plain"})
    assert answer.status_code == 401
