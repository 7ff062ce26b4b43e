"""The catalog's scripts, each with the keys of its hash slot: the whole cluster's, a tenant's, a database's."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from redis.asyncio import Redis

from shared.catalog.notes import Notes
from shared.errors import Unavailable
from shared.redis.keys import Keys
from shared.redis.scripts import Argument, Script

TENANTS: Final = Script("shared.catalog", "tenants", uses=["restoring"])
DATABASES: Final = Script("shared.catalog", "databases", uses=["restoring"])
COLLECTIONS: Final = Script("shared.catalog", "collections", uses=["restoring"])

GROWING: Final = {
    script: Script("shared.catalog", name, uses=["restoring"], flags="")
    for script, name in ((TENANTS, "tenants"), (DATABASES, "databases"), (COLLECTIONS, "collections"))
}
"""The scripts as the verbs run by which clients make the catalog larger: a full server refuses those."""

TENANTS_NOTE: Final = "tenants"
"""The note that something of the tenants or their databases is missed; no database has such a key."""

GROWING_VERBS: Final = frozenset({"add", "resource", "update"})


def script_for(script: Script, verb: Argument) -> Script:
    """The script that a full server refuses, if the verb makes the catalog larger for a client; else the script that it
    takes: what leads to less is never refused, and neither is a restoration.
    """
    return GROWING[script] if verb in GROWING_VERBS else script


class CatalogScripts:
    """The catalog's scripts, a method for each; verbs, arguments and replies are in the scripts' headers.

    Those of a restoration have its `epoch`: they raise Unavailable, and change nothing, where a slot was restored in
    this epoch or a later one.
    """

    def __init__(self, redis: Redis, keys: Keys, epoch: int | None = None) -> None:
        self._redis = redis
        self._keys = keys
        self._epoch = epoch

    async def tenants(self, verb: str, *args: Argument) -> Any:
        names = self._keys
        keys = [names.tenants, names.resources, names.tenant_trash, names.cleared_tenants, names.changes]
        keys += [names.catalog_version, names.catalog_pending, names.catalog_epoch]
        return await self._run(TENANTS, keys, [verb, *args], TENANTS_NOTE)

    async def databases(self, tenant: str, verb: str, *args: Argument) -> Any:
        names = self._keys
        keys = [names.databases(tenant), names.database_order(tenant), names.database_trash(tenant)]
        keys += [names.tenant_version(tenant), names.tenant_pending(tenant), names.tenant_epoch(tenant)]
        return await self._run(DATABASES, keys, [verb, *args], TENANTS_NOTE)

    async def collections(self, database_key: str, verb: str, *args: Argument) -> list[Any]:
        key, names = database_key, self._keys
        keys = [names.names(key), names.rows(key), names.order(key), names.trash(key), names.closed(key)]
        keys += [names.functions(key), names.database_version(key), names.database_pending(key)]
        keys += [names.database_epoch(key), names.forgotten(key)]
        reply: list[Any] = await self._run(COLLECTIONS, keys, [verb, *args], key)
        return reply

    async def _run(self, script: Script, keys: Sequence[str], args: Sequence[Argument], note: str) -> Any:
        """The script's reply. Raises Unavailable, and has the log service look at what `note` says, when the script was
        refused because something of its slot was lost.
        """
        if self._epoch is None:
            reply = await script_for(script, args[0]).run(self._redis, keys, args)
            if reply in (b"LOST", [b"LOST"]):
                await Notes(self._redis, self._keys.losses).add([note])
                raise Unavailable("A part of the catalog was lost and is being restored")
            return reply
        reply = await script.run(self._redis, keys, ["restoring", self._epoch, *args])
        require_not_later(reply)
        return reply


def require_not_later(reply: Any) -> None:
    """Raises Unavailable when the reply says that a slot was restored in the same epoch or a later one."""
    if reply in (b"LATER", [b"LATER"]):
        raise Unavailable("Another log service has restored the cluster")
