"""The scope matrix: every route of the access table by every kind of credential, against running frontends.

A route that is new in the table is asked here without anybody's doing. What has to come of it follows from its row and
from who asks, as docs/security.md promises it; nothing here looks at how frontends decide.
"""

from __future__ import annotations

import enum
import re
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import httpx
import pytest

from frontend.access.access_table import TABLE, About, Access
from shared.tenancy.actions import Action, Role
from shared.tenancy.api_keys import draw_key
from tests.access_page import least_role
from tests.tenancy.keyring import Keyring, Place, body_of, furnished, path_of

GUARDED = [row for row in TABLE if row[2].about is not About.NOTHING]
NAMES = [f"{method} {pattern}" for method, pattern, _ in GUARDED]

IN_A_COLLECTION = {About.COLLECTION, About.NAMED_COLLECTION, About.CRN}
MAKES_COLLECTIONS = {Action.CREATE_COLLECTION, Action.GET_OR_CREATE_COLLECTION}
RANK = list(Role)

every_route = pytest.mark.parametrize(("method", "pattern", "access"), GUARDED, ids=NAMES)


class Outcome(enum.Enum):
    """What may come of a request."""

    REFUSED = enum.auto()
    """401: the credential does not hold."""
    HIDDEN = enum.auto()
    """What the operator gets who asks for a name that does not exist."""
    DENIED = enum.auto()
    """403."""
    ALLOWED = enum.auto()
    """None of these: the handler answered."""


@dataclass(frozen=True)
class Holder:
    """A kind of key that holds. `hides_from`: the widest thing of the place that is outside of its scope."""

    role: Role
    hides_from: About | None = None
    one_collection: bool = False
    one_tenant: bool = True


HOLDERS = {
    "a key of another tenant": Holder(Role.ADMIN, hides_from=About.TENANT),
    "a key of another database": Holder(Role.WRITE, hides_from=About.DATABASE),
    "a key of another collection": Holder(Role.WRITE, hides_from=About.COLLECTION, one_collection=True),
    "a key of the collection": Holder(Role.WRITE, one_collection=True),
    "a read key": Holder(Role.READ),
    "a write key": Holder(Role.WRITE),
    "an admin's key": Holder(Role.ADMIN),
    "the operator's key": Holder(Role.SYSTEM, one_tenant=False),
}
REFUSED = ("none", "expired", "revoked", "mistyped", "unknown", "word")


def expected(holder: Holder, access: Access) -> Outcome:
    """What the matrix says."""
    about = About.COLLECTION if access.about in IN_A_COLLECTION else access.about
    if holder.hides_from is not None and about >= holder.hides_from:
        return Outcome.HIDDEN
    if RANK.index(holder.role) < RANK.index(least_role(access)):
        return Outcome.DENIED
    if about is About.SYSTEM and holder.one_tenant:
        return Outcome.DENIED
    makes = MAKES_COLLECTIONS & (access.actions | access.any_of)
    if holder.one_collection and (access.whole or makes):
        return Outcome.DENIED
    return Outcome.ALLOWED


@dataclass(frozen=True)
class Answer:
    """What a client sees of an answer, with the names that it sent taken out."""

    status: int
    text: str

    @staticmethod
    def of(response: httpx.Response, place: Place) -> Answer:
        text = response.text
        for name in (place.crn, place.collection_id, place.tenant, place.database, place.name):
            text = text.replace(f"[{name}]", "[...]")
        return Answer(response.status_code, text)

    @property
    def denied(self) -> bool:
        return self.status == 403 and '"error":"AuthError"' in self.text


def absent(place: Place, hides_from: About) -> Place:
    """The place with a name in it that does not exist, where the scope of the key ends."""
    word = str(uuid.uuid4())
    tenant, database, name = place.crn.split(":")
    match hides_from:
        case About.TENANT:
            return replace(place, tenant=f"tenant-{word}", crn=f"{word}:{database}:{name}")
        case About.DATABASE:
            return replace(place, database=word, crn=f"{tenant}:{word}:{name}")
    return replace(place, collection_id=word, name=word, crn=f"{tenant}:{database}:{word}")


def ask(keyring: Keyring, key: str | None, method: str, pattern: str, place: Place, access: Access) -> Answer:
    of_id = {"name": place.collection_id} if access.id_param == "name" else {}
    path = re.sub(r"\{\w+\}", "something", path_of(pattern, place, **of_id))
    return Answer.of(keyring.ask(key, method, path, body_of(method, pattern)), place)


def key_of(keyring: Keyring, kind: str, place: Place) -> str:
    """A key of this kind, as seen from the place."""
    made: dict[str, Callable[[], str]] = {
        "a key of another tenant": lambda: keyring.key(furnished(keyring).tenant, "admin"),
        "a key of another database": lambda: keyring.key(place.tenant, "write", databases=[other_database()]),
        "a key of another collection": lambda: bound_to(other_collection()),
        "a key of the collection": lambda: bound_to(place.collection_id),
        "a read key": lambda: keyring.key(place.tenant, "read"),
        "a write key": lambda: keyring.key(place.tenant, "write"),
        "an admin's key": lambda: keyring.key(place.tenant, "admin"),
        "the operator's key": lambda: keyring.bootstrap,
    }

    def other_database() -> str:
        """One with a collection of the same name."""
        keyring.do("POST", f"/api/v2/tenants/{place.tenant}/databases", {"name": "elsewhere"})
        base = f"/api/v2/tenants/{place.tenant}/databases/elsewhere"
        keyring.do("POST", f"{base}/collections", {"name": place.name})
        return "elsewhere"

    def other_collection() -> str:
        made = keyring.do("POST", f"{place.database_path}/collections", {"name": "elsewhere", "get_or_create": True})
        return str(made["id"])

    def bound_to(collection_id: str) -> str:
        return keyring.key(place.tenant, "write", databases=[place.database], collections=[collection_id])

    return made[kind]()


@pytest.fixture(scope="module", params=HOLDERS, ids=lambda kind: kind.replace(" ", "-"))
def holding(request: pytest.FixtureRequest, keyring: Keyring) -> tuple[str, str, Place]:
    """A kind of key, a key, and the place that it is tried at."""
    place = furnished(keyring)
    return request.param, key_of(keyring, request.param, place), place


@every_route
def test_a_key_gets_what_the_matrix_says(
    keyring: Keyring, holding: tuple[str, str, Place], method: str, pattern: str, access: Access
) -> None:
    kind, key, place = holding
    holder = HOLDERS[kind]
    outcome = expected(holder, access)
    if outcome is Outcome.ALLOWED and method in ("DELETE", "PATCH"):  # which would be gone, or renamed, for the others
        place = furnished(keyring)
        key = key_of(keyring, kind, place)
    answer = ask(keyring, key, method, pattern, place, access)
    assert answer.denied == (outcome is Outcome.DENIED), answer
    assert answer.status != 401
    assert answer.status < 500, answer
    if answer.denied:
        return
    if access.about in (About.SELF, About.SYSTEM, About.OWN):
        return
    end = holder.hides_from or About.COLLECTION
    nowhere = absent(place, end if access.about in IN_A_COLLECTION else min(access.about, end))
    missing = ask(keyring, keyring.bootstrap, method, pattern, nowhere, access)
    assert (answer == missing) == (outcome is Outcome.HIDDEN), "a new route may need a body in tests/tenancy/keyring.py"


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
    found = {
        "none": None,
        "expired": expired,
        "revoked": revoked,
        "mistyped": mistyped[:-1] + ("0" if mistyped[-1] != "0" else "1"),
        "unknown": draw_key().text,
        "word": "None",  # what CloudClient sends when nothing but its environment has the key
    }
    assert set(found) == set(REFUSED)
    return found


@every_route
@pytest.mark.parametrize("kind", REFUSED)
def test_a_credential_that_does_not_hold_gets_nothing(
    keyring: Keyring,
    place: Place,
    refused: dict[str, str | None],
    kind: str,
    method: str,
    pattern: str,
    access: Access,
) -> None:
    answer: Any = keyring.ask_from_elsewhere(refused[kind], method, path_of(pattern, place), body_of(method, pattern))
    assert answer.status_code == 401
    assert answer.json()["error"] == "AuthorizationError"
    assert answer.headers["www-authenticate"] == "Bearer"
