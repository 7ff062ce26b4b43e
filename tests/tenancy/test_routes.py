"""What answers as if it was not there, and what anyone may ask. (Every route by every key: `test_matrix`.)"""

from __future__ import annotations

import uuid
from typing import Any

import httpx
import pytest

from frontend.access.access_table import TABLE, About, Access
from tests.tenancy.keyring import Keyring, Place, body_of, path_of

GUARDED = [row for row in TABLE if row[2].about is not About.NOTHING]
IN_A_TENANT = {About.TENANT, About.DATABASE, About.COLLECTION, About.NAMED_COLLECTION}

IN_A_COLLECTION = {About.COLLECTION, About.NAMED_COLLECTION}


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
