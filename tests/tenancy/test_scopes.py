"""What lists show, what only the body says, and what nobody gets by making keys."""

from __future__ import annotations

from typing import Any

import pytest

from tests.tenancy.keyring import CONTROL, Keyring, Place, furnished


@pytest.fixture(scope="module")
def shop(keyring: Keyring) -> Place:
    """A place with two more collections, and two more databases."""
    place = furnished(keyring)
    for name in ("second", "third"):
        keyring.do("POST", f"{place.database_path}/collections", {"name": name})
        keyring.do("POST", f"/api/v2/tenants/{place.tenant}/databases", {"name": name})
    return place


@pytest.fixture(scope="module")
def bound(keyring: Keyring, shop: Place) -> str:
    """A key of the first collection alone."""
    return keyring.key(shop.tenant, "admin", databases=["main"], collections=[shop.collection_id])


def names(answer: Any) -> list[str]:
    assert answer.status_code == 200, answer.text
    return [each["name"] for each in answer.json()]


def test_lists_show_what_is_in_the_scope(keyring: Keyring, shop: Place, bound: str) -> None:
    collections = f"{shop.database_path}/collections"
    databases = f"/api/v2/tenants/{shop.tenant}/databases"
    whole = keyring.key(shop.tenant, "read")
    some = keyring.key(shop.tenant, "read", databases=["third", "second", "gone"])
    assert names(keyring.ask(whole, "GET", collections)) == ["items", "second", "third"]
    assert names(keyring.ask(bound, "GET", collections)) == ["items"]
    assert names(keyring.ask(bound, "GET", f"{collections}?offset=1")) == []
    assert keyring.ask(bound, "GET", f"{collections}_count").json() == 1
    assert names(keyring.ask(whole, "GET", databases)) == ["main", "second", "third"]
    assert names(keyring.ask(some, "GET", databases)) == ["second", "third"]
    assert names(keyring.ask(some, "GET", f"{databases}?limit=1&offset=1")) == ["third"]
    assert names(keyring.ask(bound, "GET", databases)) == ["main"]


def test_a_key_of_a_collection_finds_it_by_every_name_and_makes_no_other(
    keyring: Keyring, shop: Place, bound: str
) -> None:
    collections = f"{shop.database_path}/collections"
    for path in (
        f"{collections}/items",
        f"{collections}/by-id/{shop.collection_id}",
        f"/api/v2/collections/{shop.crn}",
    ):
        assert keyring.ask(bound, "GET", path).json()["id"] == shop.collection_id
    got = keyring.ask(bound, "POST", collections, {"name": "items", "get_or_create": True})
    assert got.json()["id"] == shop.collection_id
    assert keyring.ask(bound, "POST", collections, {"name": "items"}).status_code == 409
    for name in ("second", "no-such"):  # taken or free: no difference
        for get in (True, False):
            refused = keyring.ask(bound, "POST", collections, {"name": name, "get_or_create": get})
            assert (refused.status_code, refused.json()["error"]) == (403, "AuthError")
        assert keyring.ask(bound, "DELETE", f"{collections}/{name}").status_code == 404
        assert keyring.ask(bound, "PUT", shop.path, {"new_name": name}).status_code == 403
        assert keyring.ask(bound, "POST", f"{shop.path}/fork", {"new_name": name}).status_code == 403
    assert keyring.ask(bound, "PUT", shop.path, {"new_metadata": {"a": 1}}).status_code == 200


def test_a_key_of_some_databases_makes_and_deletes_these_alone(keyring: Keyring, shop: Place, bound: str) -> None:
    databases = f"/api/v2/tenants/{shop.tenant}/databases"
    key = keyring.key(shop.tenant, "admin", databases=["third", "fourth"])
    assert keyring.ask(key, "POST", databases, {"name": "fourth"}).status_code == 200
    assert keyring.ask(key, "POST", databases, {"name": "fifth"}).status_code == 403
    assert keyring.ask(key, "POST", databases, {"name": "main"}).status_code == 403
    assert keyring.ask(key, "DELETE", f"{databases}/fourth").status_code == 200
    assert keyring.ask(key, "DELETE", f"{databases}/main").status_code == 404
    assert keyring.ask(bound, "POST", databases, {"name": "main"}).status_code == 403
    assert keyring.ask(bound, "DELETE", f"{databases}/main").status_code == 403


def test_a_deletion_by_a_filter_and_a_commit_of_what_was_read_need_to_read(keyring: Keyring, shop: Place) -> None:
    key = keyring.key(shop.tenant, None, actions=["collection:delete", "collection:upsert"])
    assert keyring.ask(key, "POST", f"{shop.path}/delete", {"ids": ["x"]}).status_code == 200
    for selector in ({"where": {"a": 1}}, {"where_document": {"$contains": "x"}}, {"ids": ["x"], "where": {"a": 1}}):
        refused = keyring.ask(key, "POST", f"{shop.path}/delete", selector)
        assert refused.status_code == 403
        assert "collection:get" in refused.json()["message"]
    commit, row = f"{shop.path}/conditional/commit", {"ids": ["y"], "embeddings": [[1, 1]]}
    assert (
        keyring.ask(key, "POST", commit, {"operations": [{"operation": "upsert", "payload": row}]}).status_code == 200
    )
    mixed = [{"operation": "upsert", "payload": row}, {"operation": "add", "payload": row}]
    assert keyring.ask(key, "POST", commit, {"operations": mixed}).status_code == 403
    of_read = {"operations": mixed[:1], "read_token": 1, "read_ids": ["y"]}
    assert keyring.ask(key, "POST", commit, of_read).status_code == 403


def test_a_key_may_create_or_get_as_its_actions_say(keyring: Keyring, shop: Place) -> None:
    collections = f"{shop.database_path}/collections"
    getter = keyring.key(shop.tenant, None, actions=["db:get_or_create_collection"])
    assert keyring.ask(getter, "POST", collections, {"name": "items", "get_or_create": True}).status_code == 200
    assert keyring.ask(getter, "POST", collections, {"name": "new-one"}).status_code == 403


def test_a_function_is_hidden_with_its_output(keyring: Keyring, shop: Place, bound: str) -> None:
    attach = {"name": "counter", "function_id": "record_counter", "output_collection": "counts"}
    assert keyring.ask(bound, "POST", f"{shop.path}/functions/attach", attach).status_code == 403
    keyring.do("POST", f"{shop.path}/functions/attach", attach)
    of_function = f"{shop.path}/attached_functions/counter"
    assert keyring.ask(bound, "GET", f"{shop.path}/functions/counter").status_code == 404
    assert keyring.ask(bound, "POST", f"{of_function}/detach", {"delete_output": True}).status_code == 404
    output = keyring.do("GET", f"{shop.database_path}/collections/counts")["id"]
    second = keyring.do("GET", f"{shop.database_path}/collections/second")["id"]
    both = keyring.key(shop.tenant, "admin", databases=["main"], collections=[shop.collection_id, output])
    assert keyring.ask(both, "GET", f"{shop.path}/functions/counter").status_code == 200
    hidden = keyring.ask(both, "POST", f"{of_function}/add_input", {"input_collection_id": second})
    assert (hidden.status_code, hidden.json()["error"]) == (404, "NotFoundError")
    no_delete = keyring.key(shop.tenant, None, actions=["collection:remove_attached_function"])
    assert keyring.ask(no_delete, "POST", f"{of_function}/detach", {"delete_output": True}).status_code == 403
    keyring.do("POST", f"{of_function}/detach", {})


# Keys by keys


def test_nobody_makes_a_key_with_more_than_their_own(keyring: Keyring, shop: Place, bound: str) -> None:
    admin = keyring.key(shop.tenant, "admin")
    keys = f"{CONTROL}/keys"
    beyond: list[dict[str, Any]] = [
        {"tenant": shop.tenant, "role": "system"},
        {"tenant": None, "role": "read"},
        {"tenant": shop.tenant, "actions": ["system:reset"]},
    ]
    for body in beyond:
        assert keyring.ask(admin, "POST", keys, body).status_code == 403, body
    assert keyring.ask(admin, "POST", keys, {"tenant": "default_tenant", "role": "read"}).status_code == 404
    assert keyring.ask(admin, "POST", keys, {"tenant": "no-such", "role": "read"}).status_code == 404
    assert keyring.ask(admin, "POST", keys, {"tenant": shop.tenant, "role": "admin"}).status_code == 201
    assert keyring.ask(bound, "POST", keys, {"tenant": shop.tenant, "role": "read"}).status_code == 403
    writer = keyring.key(shop.tenant, "write")
    assert keyring.ask(writer, "POST", keys, {"tenant": shop.tenant, "role": "read"}).status_code == 403


def test_a_key_with_a_mistyped_restriction_is_not_made(keyring: Keyring, shop: Place) -> None:
    bodies: list[dict[str, Any]] = [
        {"tenant": shop.tenant, "role": "read", "database": ["main"]},
        {"role": "read"},
        {"tenant": shop.tenant, "role": "read", "collections": ["x"]},
        {"tenant": shop.tenant, "role": "read", "databases": []},
        {"tenant": shop.tenant},
        {"tenant": shop.tenant, "role": "read", "expires_in_s": -1},
    ]
    for body in bodies:
        refused = keyring.ask(keyring.bootstrap, "POST", f"{CONTROL}/keys", body)
        assert refused.status_code in (400, 422), body


def test_keys_outside_of_the_scope_are_not_there(keyring: Keyring, shop: Place) -> None:
    admin = keyring.key(shop.tenant, "admin")
    mine, others = keyring.made(shop.tenant, "read"), keyring.made("default_tenant", "read")
    listed = keyring.ask(admin, "GET", f"{CONTROL}/keys").json()
    assert mine["id"] in {key["id"] for key in listed}
    assert {key["tenant"] for key in listed} == {shop.tenant}
    assert not {name for key in listed for name in key if "hash" in name or "sha" in name}
    for method, path in (("GET", ""), ("POST", "/rotate"), ("POST", "/revoke")):
        body: dict[str, Any] | None = {} if method == "POST" else None
        hidden = keyring.ask(admin, method, f"{CONTROL}/keys/{others['id']}{path}", body)
        absent = keyring.ask(admin, method, f"{CONTROL}/keys/{'b' * 16}{path}", body)
        assert hidden.status_code == absent.status_code == 404
        assert hidden.json()["message"].replace(others["id"], "b" * 16) == absent.json()["message"]


def test_a_rotated_key_holds_beside_its_successor_or_not_at_all(keyring: Keyring, shop: Place) -> None:
    made = keyring.made(shop.tenant, "read")
    rotated = keyring.do("POST", f"{CONTROL}/keys/{made['id']}/rotate", {"overlap_s": 600})
    assert rotated["id"] == made["id"]
    for key in (made["key"], rotated["key"]):
        assert keyring.ask(key, "GET", "/api/v2/auth/identity").status_code == 200
    third = keyring.do("POST", f"{CONTROL}/keys/{made['id']}/rotate", {"overlap_s": 0})
    assert keyring.ask(third["key"], "GET", "/api/v2/auth/identity").status_code == 200


def test_a_tenant_is_shown_with_what_is_in_the_scope(keyring: Keyring) -> None:
    place = furnished(keyring)
    keyring.do("POST", f"/api/v2/tenants/{place.tenant}/databases", {"name": "second"})
    whole = keyring.key(place.tenant, "admin")
    some = keyring.key(place.tenant, "read", databases=["second"])
    path = f"{CONTROL}/tenants/{place.tenant}"
    counts = [
        (shown["databases"], shown["keys"]) for key in (whole, some) for shown in [keyring.ask(key, "GET", path).json()]
    ]
    assert counts == [(2, 2), (1, 1)]


def test_a_deleted_tenant_takes_its_keys_along(keyring: Keyring) -> None:
    gone = furnished(keyring)
    key = keyring.key(gone.tenant, "admin")
    assert keyring.do("GET", f"{CONTROL}/tenants/{gone.tenant}")["keys"] == 1
    assert gone.tenant in {tenant["name"] for tenant in keyring.do("GET", f"{CONTROL}/tenants")}
    assert keyring.do("DELETE", f"{CONTROL}/tenants/{gone.tenant}")["keys_revoked"] == 1
    assert keyring.ask(keyring.bootstrap, "GET", f"/api/v2/tenants/{gone.tenant}").status_code == 404
    assert keyring.ask(keyring.bootstrap, "DELETE", f"{CONTROL}/tenants/{gone.tenant}").status_code == 404
    again = furnished(keyring, gone.tenant)
    assert keyring.ask(key, "POST", f"{again.path}/get", {}).status_code == 401
    assert keyring.do("POST", f"{again.path}/get", {})["ids"] == ["a"]
