"""The name of every key in Redis, in one place. What each holds is the table in docs/architecture.md; which roles may
use it, the rules in polychrome/redis_users.py.

The part in braces is the hash slot: one script touches keys of one slot only, so a cluster of Redis servers can hold
them. Names that clients choose are percent-encoded, so that a brace in a tenant's name cannot move a key.
"""

from __future__ import annotations

from urllib.parse import quote


class Keys:
    """The keys under one prefix. Two clusters with different prefixes can share a server. In all methods `tenant` is
    the name of a tenant (its name is unique), `database` the key of a database (`Database.key`, not its name or id),
    `collection_id` the id of a collection. Nothing raises.
    """

    def __init__(self, prefix: str = "pc") -> None:
        self.prefix = prefix
        self.cluster = f"{prefix}:{{catalog}}:cluster"
        self.report = f"{prefix}:{{catalog}}:report"
        self.restoring = f"{prefix}:{{catalog}}:restoring"
        self.changes = f"{prefix}:{{catalog}}:changes"
        self.graves = f"{prefix}:{{catalog}}:graves"
        self.commits = f"{prefix}:{{catalog}}:commits"
        self.unproven = f"{prefix}:{{catalog}}:unproven"
        self.losses = f"{prefix}:{{catalog}}:losses"
        self.tenants = f"{prefix}:{{catalog}}:tenants"
        self.resources = f"{prefix}:{{catalog}}:resources"
        self.tenant_trash = f"{prefix}:{{catalog}}:trash"
        self.cleared_tenants = f"{prefix}:{{catalog}}:cleared"
        self.dirty = f"{prefix}:{{dirty}}"
        self.jobs = f"{prefix}:{{jobs}}"
        self.job_leases = f"{prefix}:{{jobs}}:leases"
        self.damage = f"{prefix}:{{catalog}}:damage"
        self.witnesses = f"{prefix}:{{witness}}:heartbeats"
        self.families = f"{prefix}:{{catalog}}:families"

        self.control_generation = f"{prefix}:{{catalog}}:control:generation"
        self.usage_hours = f"{prefix}:{{catalog}}:usage"
        self.used_keys = f"{prefix}:{{catalog}}:control:used"
        self.erasures = f"{prefix}:{{catalog}}:erasures"
        self.erased_segments = f"{prefix}:{{catalog}}:erasures:segments"
        self.erased_heard = f"{prefix}:{{catalog}}:erasures:heard"

        self.catalog_version = f"{prefix}:{{catalog}}:version"
        self.catalog_pending = f"{prefix}:{{catalog}}:pending"
        self.catalog_epoch = f"{prefix}:{{catalog}}:epoch"

    def control(self, kind: str) -> str:
        return f"{self.prefix}:{{catalog}}:control:{kind}"

    def usage(self, hour: str) -> str:
        return f"{self.prefix}:{{catalog}}:usage:{hour}"

    def forks(self, root: str) -> str:
        return f"{self.prefix}:{{catalog}}:forks:{root}"

    def databases(self, tenant: str) -> str:
        return f"{self._tenant(tenant)}:databases"

    def database_order(self, tenant: str) -> str:
        return f"{self._tenant(tenant)}:order"

    def database_trash(self, tenant: str) -> str:
        return f"{self._tenant(tenant)}:trash"

    def tenant_version(self, tenant: str) -> str:
        return f"{self._tenant(tenant)}:version"

    def tenant_pending(self, tenant: str) -> str:
        return f"{self._tenant(tenant)}:pending"

    def tenant_epoch(self, tenant: str) -> str:
        return f"{self._tenant(tenant)}:epoch"

    def stored(self, tenant: str) -> str:
        return f"{self._tenant(tenant)}:stored"

    def names(self, database: str) -> str:
        return f"{self._database(database)}:names"

    def rows(self, database: str) -> str:
        return f"{self._database(database)}:rows"

    def order(self, database: str) -> str:
        return f"{self._database(database)}:order"

    def closed(self, database: str) -> str:
        return f"{self._database(database)}:closed"

    def functions(self, database: str) -> str:
        return f"{self._database(database)}:functions"

    def trash(self, database: str) -> str:
        return f"{self._database(database)}:trash"

    def database_version(self, database: str) -> str:
        return f"{self._database(database)}:version"

    def database_pending(self, database: str) -> str:
        return f"{self._database(database)}:pending"

    def database_epoch(self, database: str) -> str:
        return f"{self._database(database)}:epoch"

    def forgotten(self, database: str) -> str:
        return f"{self._database(database)}:forgotten"

    def state(self, collection_id: str) -> str:
        return f"{self._collection(collection_id)}:state"

    def metadata_keys(self, collection_id: str) -> str:
        return f"{self._collection(collection_id)}:keys"

    def log(self, collection_id: str, shard: int) -> str:
        return f"{self._collection(collection_id)}:log:{shard}"

    def substitutes(self, collection_id: str) -> str:
        return f"{self._collection(collection_id)}:substitutes"

    def request(self, collection_id: str, request_id: str) -> str:
        return f"{self._collection(collection_id)}:req:{request_id}"

    def lease(self, name: str) -> str:
        return f"{self.prefix}:{{lease}}:{name}"

    def statements(self, run: str) -> str:
        return f"{self.prefix}:{{witness}}:statements:{run}"

    def witnessed(self, run: str, witness: str) -> str:
        return f"{self.prefix}:{{witness}}:entries:{run}:{witness}"

    def members(self, role: str) -> str:
        return f"{self.prefix}:{{members}}:{role}"

    def heartbeats(self, role: str) -> str:
        return f"{self.prefix}:{{members}}:{role}:heartbeats"

    @property
    def every_state(self) -> str:
        """Pattern for SCAN that finds the state of every collection, orphans included."""
        return f"{_escaped(self.prefix)}:{{*}}:state"

    def collection_of_state(self, key: str) -> str:
        """The collection id inside a key found by `every_state`."""
        return key[len(self.prefix) + 2 : -len("}:state")]

    def _tenant(self, name: str) -> str:
        return f"{self.prefix}:{{tenant:{quote(name, safe='')}}}"

    def _database(self, key: str) -> str:
        return f"{self.prefix}:{{db:{key}}}"

    def _collection(self, collection_id: str) -> str:
        return f"{self.prefix}:{{{collection_id}}}"


def _escaped(text: str) -> str:
    return "".join(f"\\{character}" if character in "*?[]\\" else character for character in text)
