"""Two tenants with equal names of everything, and keys of many scopes: a model of what each key may see and change."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, initialize, rule, run_state_machine_as_test

from tests.tenancy.keyring import Keyring

TENANTS, DATABASES, NAMES = ("left", "right"), ("main", "more"), ("one", "two")
RUNS = itertools.count()


@dataclass(frozen=True)
class Key:
    text: str
    tenant: str
    role: str
    databases: frozenset[str] | None
    collections: frozenset[str] | None

    def sees(self, tenant: str, database: str, collection_id: str | None = None) -> bool:
        return (
            tenant == self.tenant
            and (self.databases is None or database in self.databases)
            and (collection_id is None or self.collections is None or collection_id in self.collections)
        )


@dataclass
class World:
    """Collections by (tenant, database, name): their id, and their records with documents."""

    ids: dict[tuple[str, str, str], str] = field(default_factory=dict)
    records: dict[str, dict[str, str]] = field(default_factory=dict)


class Tenants(RuleBasedStateMachine):
    keyring: Keyring
    keys: Bundle[Key] = Bundle("keys")

    @initialize()
    def begin(self) -> None:
        self.world, self.run = World(), next(RUNS)
        for tenant in TENANTS:
            self.keyring.do("POST", "/api/v2/tenants", {"name": self.named(tenant)})
            for database in DATABASES:
                self.keyring.do("POST", f"/api/v2/tenants/{self.named(tenant)}/databases", {"name": database})
                for name in NAMES:
                    made = self.keyring.do("POST", self.base(tenant, database), {"name": name})
                    self.world.ids[tenant, database, name] = made["id"]
                    self.world.records[made["id"]] = {}

    def named(self, tenant: str) -> str:
        return f"{tenant}-{self.run}"

    def base(self, tenant: str, database: str) -> str:
        return f"/api/v2/tenants/{self.named(tenant)}/databases/{database}/collections"

    def ask(self, key: Key, method: str, path: str, body: Any = None) -> tuple[int, Any]:
        answer = self.keyring.ask(key.text, method, path, body)
        return answer.status_code, answer.json()

    def key(self, tenant: str, role: str, databases: set[str] | None, collections: list[str] | None) -> Key:
        names = None if databases is None else sorted(databases)
        text = self.keyring.key(self.named(tenant), role, databases=names, collections=collections)
        frozen = None if databases is None else frozenset(databases)
        return Key(text, tenant, role, frozen, None if collections is None else frozenset(collections))

    @rule(
        target=keys,
        tenant=st.sampled_from(TENANTS),
        role=st.sampled_from(("read", "write")),
        databases=st.none() | st.sets(st.sampled_from(DATABASES), min_size=1),
    )
    def new_key(self, tenant: str, role: str, databases: set[str] | None) -> Key:
        return self.key(tenant, role, databases, None)

    @rule(target=keys, at=st.data(), role=st.sampled_from(("read", "write")))
    def new_key_of_a_collection(self, at: Any, role: str) -> Key:
        places = sorted(self.world.ids)
        if not places:
            return self.key("left", role, {"main"}, ["11111111-1111-4111-8111-111111111111"])
        tenant, database, name = at.draw(st.sampled_from(places))
        return self.key(tenant, role, {database}, [self.world.ids[tenant, database, name]])

    @rule(key=keys, tenant=st.sampled_from(TENANTS), database=st.sampled_from(DATABASES), name=st.sampled_from(NAMES))
    def create(self, key: Key, tenant: str, database: str, name: str) -> None:
        status, body = self.ask(key, "POST", self.base(tenant, database), {"name": name})
        there = self.world.ids.get((tenant, database, name))
        if not key.sees(tenant, database):
            assert status == 400
        elif key.role == "read":
            assert status == 403
        elif key.collections is not None:
            assert status == (409 if there in key.collections else 403)
        elif there is not None:
            assert status == 409
        else:
            assert status == 200
            self.world.ids[tenant, database, name] = body["id"]
            self.world.records[body["id"]] = {}

    @rule(key=keys, tenant=st.sampled_from(TENANTS), database=st.sampled_from(DATABASES), name=st.sampled_from(NAMES))
    def delete(self, key: Key, tenant: str, database: str, name: str) -> None:
        status, _ = self.ask(key, "DELETE", f"{self.base(tenant, database)}/{name}")
        there = self.world.ids.get((tenant, database, name))
        if key.sees(tenant, database) and key.role == "read":
            assert status == 403
        elif there is None or not key.sees(tenant, database, there):
            assert status == 404
        else:
            assert status == 200
            del self.world.records[self.world.ids.pop((tenant, database, name))]

    @rule(key=keys, tenant=st.sampled_from(TENANTS), database=st.sampled_from(DATABASES))
    def list_all(self, key: Key, tenant: str, database: str) -> None:
        status, body = self.ask(key, "GET", self.base(tenant, database))
        seen = {
            id_ for (of, within, _), id_ in self.world.ids.items()
            if (of, within) == (tenant, database) and key.sees(tenant, database, id_)
        }  # fmt: skip
        assert (status, {each["id"] for each in body}) == (200, seen)
        assert self.ask(key, "GET", f"{self.base(tenant, database)}_count") == (200, len(seen))

    @rule(key=keys, at=st.data(), astray=st.booleans())
    def write_and_read(self, key: Key, at: Any, astray: bool) -> None:
        """By an id, below its own database or (`astray`) any other."""
        place = at.draw(st.sampled_from(sorted(self.world.ids) or [("left", "main", "one")]))
        id_ = self.world.ids.get(place, "11111111-1111-4111-8111-111111111111")
        tenant, database = place[:2]
        if astray:
            tenant, database = at.draw(st.sampled_from(TENANTS)), at.draw(st.sampled_from(DATABASES))
        path, document = f"{self.base(tenant, database)}/{id_}", f"by {key.text[:12]}"
        status, _ = self.ask(
            key, "POST", f"{path}/upsert", {"ids": ["r"], "embeddings": [[1, 1]], "documents": [document]}
        )
        visible = key.sees(tenant, database, id_)
        is_there = place in self.world.ids and place[:2] == (tenant, database)
        if visible and key.role == "read":
            assert status == 403
        elif not visible or not is_there:
            assert status == 404
        else:
            assert status == 200
            self.world.records[id_]["r"] = document
        status, body = self.ask(key, "POST", f"{path}/get", {})
        if visible and is_there:
            assert (status, dict(zip(body["ids"], body["documents"], strict=True))) == (200, self.world.records[id_])
        else:
            assert status == 404

    @rule(key=consumes(keys))
    def revoke(self, key: Key) -> None:
        self.keyring.revoke(key.text)


@pytest.mark.timeout(180)
def test_no_key_sees_or_changes_what_is_not_in_its_scope(keyring: Keyring) -> None:
    class Bound(Tenants):
        pass

    Bound.keyring = keyring
    checks = [HealthCheck.too_slow, HealthCheck.filter_too_much]
    run_state_machine_as_test(
        Bound,
        settings=settings(
            max_examples=8, stateful_step_count=25, suppress_health_check=checks, phases=[Phase.generate]
        ),
    )
