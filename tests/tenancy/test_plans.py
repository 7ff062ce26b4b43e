"""Plans and quotas as operators set them: over HTTP and by commands, seen by those whom they concern."""

from __future__ import annotations

import json
import uuid

import pytest

from tests.tenancy.keyring import CONTROL, Keyring, Place, furnished
from tests.tenancy.test_commands import Run, done, run

__all__ = ["run"]


@pytest.fixture
def plan(keyring: Keyring) -> str:
    """The name of a plan of this test alone."""
    name = f"plan-{uuid.uuid4().hex[:8]}"
    keyring.do("PUT", f"{CONTROL}/plans/{name}", {"quotas": {"shards": 4, "records": 1000}})
    return name


def test_a_tenant_has_its_plan_and_its_own_quotas_above_it(keyring: Keyring, plan: str) -> None:
    place = furnished(keyring)
    base = f"{CONTROL}/tenants/{place.tenant}"
    assert keyring.do("PUT", f"{base}/plan", {"plan": plan}) == {"tenant": place.tenant, "plan": plan, "live": True}
    keyring.do("PUT", f"{base}/quotas", {"quotas": {"shards": 8}})
    keyring.do("PUT", f"{base}/quotas", {"quotas": {"records": 10}, "database": "main"})
    keyring.do("PUT", f"{base}/quotas", {"quotas": {"shards": None}, "collection": place.collection_id.upper()})
    assert keyring.do("GET", f"{base}/quotas")["quotas"] == {"records": 1000, "shards": 8}
    assert keyring.do("GET", f"{base}/quotas?database=main")["quotas"] == {"records": 10, "shards": 8}
    shown = keyring.do("GET", f"{base}/quotas?database=main&collection={place.collection_id}")
    assert (shown["plan"], shown["quotas"]) == (plan, {"records": 10, "shards": None})
    admin = keyring.key(place.tenant, "admin")
    assert keyring.ask(admin, "GET", f"{base}/quotas").json()["databases"] == {"main": {"records": 10}}
    assert keyring.ask(admin, "PUT", f"{base}/quotas", {"quotas": {}}).status_code == 403


def test_a_plan_that_a_tenant_has_is_not_deleted(keyring: Keyring, plan: str) -> None:
    place = furnished(keyring)
    keyring.do("PUT", f"{CONTROL}/tenants/{place.tenant}/plan", {"plan": plan})
    refused = keyring.ask(keyring.bootstrap, "DELETE", f"{CONTROL}/plans/{plan}")
    assert refused.status_code == 409
    assert place.tenant in refused.json()["message"]
    keyring.do("PUT", f"{CONTROL}/tenants/{place.tenant}/plan", {"plan": None})
    keyring.do("DELETE", f"{CONTROL}/plans/{plan}")
    assert keyring.ask(keyring.bootstrap, "GET", f"{CONTROL}/plans/{plan}").status_code == 404
    assert plan not in {each["name"] for each in keyring.do("GET", f"{CONTROL}/plans")}


def test_a_tenant_that_is_made_anew_does_not_inherit_a_plan(keyring: Keyring, plan: str) -> None:
    place = furnished(keyring)
    keyring.do("PUT", f"{CONTROL}/tenants/{place.tenant}/plan", {"plan": plan})
    keyring.do("DELETE", f"{CONTROL}/tenants/{place.tenant}")
    furnished(keyring, place.tenant)
    assert keyring.do("GET", f"{CONTROL}/tenants/{place.tenant}/plan")["plan"] is None


def test_what_makes_no_sense_is_refused(keyring: Keyring, place: Place, plan: str) -> None:
    def status(method: str, path: str, body: object) -> int:
        return keyring.ask(keyring.bootstrap, method, CONTROL + path, body).status_code

    of_tenant = f"/tenants/{place.tenant}"
    assert status("PUT", f"/plans/{plan}", {"quotas": {"recrods": 1}}) == 422
    assert status("PUT", f"/plans/{plan}", {"quotas": {"records": -1}}) == 422
    assert status("PUT", f"/plans/{plan}", {"quotas": {"records": 0.5}}) == 400
    assert status("PUT", "/plans/No%20name", {"quotas": {}}) == 400
    assert status("PUT", f"{of_tenant}/plan", {"plan": "nothing"}) == 404
    assert status("PUT", f"{of_tenant}/plan", {}) == 422
    assert status("PUT", f"{of_tenant}/quotas", {"quotas": {}, "collection": "its name"}) == 400
    assert status("PUT", "/tenants/nobody/quotas", {"quotas": {}}) == 404
    assert status("DELETE", "/plans/nothing", None) == 404


def test_plans_and_quotas_are_set_by_commands(keyring: Keyring, run: Run) -> None:
    place, name = furnished(keyring), f"plan-{uuid.uuid4().hex[:8]}"
    assert run("plans", "set", name, "records=1M", "bytes=2Gi", "reads_per_s=0.5", "shards=unlimited")[:2] == (
        0,
        f"{name} is set.\n",
    )
    shown = {"records": 1_000_000, "bytes": 2 * 1024**3, "shards": None, "reads_per_s": 0.5}
    assert done(run("plans", "show", name, "--json")) == {"name": name, "quotas": shown}
    assert f"{name}  records=1000000 bytes=2147483648 shards=unlimited reads_per_s=0.5" in run("plans", "list")[1]
    assert run("tenants", "set-plan", place.tenant, name)[1] == f"{place.tenant} has {name}.\n"
    assert run("tenants", "quotas", place.tenant, "shards=2", "--database", "main")[1] == "shards: 2\n"
    lines = run("tenants", "quotas", place.tenant, "--database", "main")[1].splitlines()
    assert lines == [f"plan: {name}", "records: 1000000", "bytes: 2147483648", "shards: 2", "reads_per_s: 0.5"]
    assert run("tenants", "quotas", place.tenant, "--database", "main", "--clear")[0] == 0
    assert "shards: unlimited" in run("tenants", "quotas", place.tenant, "--database", "main")[1]
    assert run("plans", "delete", name)[0] == 2
    assert run("tenants", "set-plan", place.tenant, "--default")[1] == f"{place.tenant} has the default plan.\n"
    assert run("plans", "delete", name)[1] == f"{name} is deleted.\n"
    for words in (["plans", "set", name, "recrods=1"], ["plans", "set", name, "records=1.5"],
                  ["plans", "set", name, "records=much"], ["plans", "set", name], ["plans", "show", "nothing"],
                  ["tenants", "set-plan", place.tenant], ["tenants", "quotas", "nobody"]):  # fmt: skip
        assert run(*words)[0] == 2, words
    assert json.loads(run("tenants", "quotas", place.tenant, "--json")[1])["quotas"] == {}
