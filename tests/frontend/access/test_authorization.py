"""Which requests of which principals are allowed, hidden or denied."""

from __future__ import annotations

import uuid

import pytest

from frontend.access.access_table import TABLE
from frontend.access.authorization import judge, require
from shared.errors import PermissionDenied
from shared.tenancy.actions import ACTIONS_OF, READ_ACTIONS, Action, Role
from shared.tenancy.principal import ANONYMOUS, Principal, Scope

PLACE = "/api/v2/tenants/{tenant}/databases/{database}"
COLLECTION = PLACE + "/collections/{collection_id}"
MINE, OTHER = str(uuid.UUID(int=1)), str(uuid.UUID(int=2))
HERE = {"tenant": "acme", "database": "main", "collection_id": MINE, "name": "col", "crn": "a:b:c"}
SOME = Scope("acme", frozenset({"main"}), frozenset({MINE}))


def principal(role: Role = Role.WRITE, scope: Scope = SOME) -> Principal:
    return Principal("k", scope, ACTIONS_OF[role], "k")


def judged(sender: Principal, method: str, pattern: str, **params: str) -> tuple[str, str] | None:
    hidden = judge(sender, TABLE.row(method, pattern), HERE | params)
    return None if hidden is None else (hidden.param, hidden.shown)


def test_anonymous_may_do_everything() -> None:
    for _, _, access in TABLE:
        assert judge(ANONYMOUS, access, HERE) is None


@pytest.mark.parametrize(
    ("params", "hidden"),
    [
        ({}, None),
        ({"tenant": "other"}, ("tenant", "other")),
        ({"tenant": "other", "database": "hidden"}, ("tenant", "other")),
        ({"database": "hidden"}, ("database", "hidden")),
        ({"database": "no"}, ("database", "no")),
        ({"collection_id": OTHER}, ("collection_id", OTHER)),
        ({"collection_id": OTHER.replace("-", "").upper()}, ("collection_id", OTHER)),
        ({"collection_id": f"urn:uuid:{MINE}"}, None),
        ({"collection_id": "no uuid"}, ("collection_id", "no uuid")),
    ],
)
def test_what_is_outside_of_the_scope_is_hidden(params: dict[str, str], hidden: tuple[str, str] | None) -> None:
    assert judged(principal(), "POST", COLLECTION + "/get", **params) == hidden


def test_what_is_hidden_is_hidden_before_an_action_is_denied() -> None:
    reader = principal(Role.READ)
    assert judged(reader, "POST", COLLECTION + "/add", tenant="other") == ("tenant", "other")
    with pytest.raises(PermissionDenied, match="collection:add is needed"):
        judged(reader, "POST", COLLECTION + "/add")


def test_a_stand_in_breaks_the_same_rules_for_names_as_what_it_stands_for() -> None:
    fork = TABLE.row("POST", COLLECTION + "/fork")
    for database in ("ab", "region+name", "another"):
        hidden = judge(principal(), fork, HERE | {"database": database})
        assert hidden is not None
        assert (len(hidden.stand_in) < 3) == (len(database) < 3)
        assert ("+" in hidden.stand_in) == ("+" in database)
        assert hidden.unveil(f"Database [{hidden.stand_in}] not found") == f"Database [{database}] not found"


def test_the_tenant_of_a_scope_hides_others_by_their_names_alone() -> None:
    of_tenant = principal(Role.ADMIN, Scope("acme"))
    assert judged(of_tenant, "DELETE", PLACE) is None
    assert judged(of_tenant, "POST", COLLECTION + "/fork") is None
    assert judged(of_tenant, "DELETE", PLACE, tenant="Acme") == ("tenant", "Acme")


@pytest.mark.parametrize(
    ("method", "pattern"),
    [("DELETE", PLACE), ("POST", COLLECTION + "/fork"), ("POST", COLLECTION + "/functions/attach")],
)
def test_a_part_of_a_database_is_not_enough_for_what_touches_all_of_it(method: str, pattern: str) -> None:
    with pytest.raises(PermissionDenied, match="only a part"):
        judged(principal(Role.ADMIN), method, pattern)
    judged(principal(Role.ADMIN, Scope("acme", frozenset({"main"}))), method, pattern)


def test_a_part_of_a_tenant_is_not_enough_for_what_touches_all_of_it() -> None:
    with pytest.raises(PermissionDenied, match="only a part"):
        judged(principal(Role.ADMIN, Scope("acme", frozenset({"main"}))), "PATCH", "/api/v2/tenants/{tenant}")


def test_tenants_are_made_by_those_alone_whose_scope_is_everything() -> None:
    assert judged(principal(Role.SYSTEM, Scope()), "POST", "/api/v2/tenants") is None
    with pytest.raises(PermissionDenied, match="scope of one tenant"):
        judged(principal(Role.SYSTEM, Scope("acme")), "POST", "/api/v2/tenants")
    with pytest.raises(PermissionDenied, match="create_tenant is needed"):
        judged(principal(Role.ADMIN, Scope()), "POST", "/api/v2/tenants")


def test_one_of_several_actions_is_enough_before_the_body_says_which() -> None:
    adder = Principal("k", SOME, frozenset({Action.ADD}))
    assert judged(adder, "POST", COLLECTION + "/conditional/commit") is None
    with pytest.raises(PermissionDenied):
        judged(Principal("k", SOME, READ_ACTIONS), "POST", COLLECTION + "/conditional/commit")
    require(adder, Action.ADD)
    with pytest.raises(PermissionDenied, match="collection:delete is needed"):
        require(adder, Action.ADD, Action.DELETE)


@pytest.mark.parametrize(
    ("inner", "outer", "within"),
    [
        (Scope("a"), Scope(), True),
        (Scope(), Scope("a"), False),
        (Scope("a"), Scope("b"), False),
        (SOME, Scope("acme"), True),
        (SOME, Scope("acme", frozenset({"main", "more"})), True),
        (SOME, Scope("acme", frozenset({"more"})), False),
        (Scope("acme", frozenset({"main"})), SOME, False),
        (SOME, SOME, True),
    ],
)
def test_a_scope_is_within_another_one_that_has_all_it_has(inner: Scope, outer: Scope, within: bool) -> None:
    assert inner.within(outer) is within
