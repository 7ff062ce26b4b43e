"""Stored amounts: what each tenant has stored, for its quotas and for the accounting of usage.

The log service counts them (`logservice.accounting`): each minute, and a few seconds after a compaction. They lie in
one hash of the tenant:

```text
pc:{tenant:<quoted name>}:stored
  records            records that its manifests say are alive, and the operations that no manifest has yet
  bytes              of these, without indexes: vectors, ids, documents, metadata (see below)
  collections        collections
  databases          databases
  backlog_ops        operations in its logs that no manifest has yet
  backlog_bytes      payload bytes of these
  unreadable         shards whose manifest could not be read: they count as what they had before, or as nothing
  at                 when this was counted, in seconds since the epoch
  records:<database>, bytes:<database>, collections:<database>        the same of each database, by its name
```

*Bytes* are logical: each segment's records file, in the proportion of its rows that are alive, and the payload of the
backlog. Indexes, tombstones, replaced manifests and history don't count, and segments that a fork shares with its
origin count in both.

Until an operation of the backlog is compacted it counts as a record, whatever it does: an upsert of an id that is
there, or a delete, is settled by the compaction, which takes a second or some.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, NamedTuple

from redis.asyncio import Redis

from shared.errors import Corrupt
from shared.redis.client import command, retry_idempotent
from shared.redis.keys import Keys
from shared.redis.scripts import Argument, Script

STORED: Final = Script("shared.tenancy", "stored")

LIFE_S: Final = 24 * 3600
"""Amounts that nobody has written for so long, in seconds, are forgotten: those of a tenant that was deleted."""

_PER_DATABASE: Final = ("records", "bytes", "collections")


class StoredSums(NamedTuple):
    """The amounts of a collection, a database or a tenant, with the members of the hash in the text of this module."""

    records: int = 0
    bytes: int = 0
    collections: int = 0
    backlog_ops: int = 0
    backlog_bytes: int = 0
    unreadable: int = 0

    def plus(self, other: StoredSums) -> StoredSums:
        """The sums of both."""
        return StoredSums(*(mine + its for mine, its in zip(self, other, strict=True)))

    def minus(self, other: StoredSums) -> StoredSums:
        """These sums without those of a part."""
        return StoredSums(*(mine - its for mine, its in zip(self, other, strict=True)))


NOTHING: Final = StoredSums()


class StoredAmounts(NamedTuple):
    """The amounts of a tenant as of `at_s`, in seconds since the epoch. `by_database` has those of each database by its
    name; in Redis these are without backlog and unreadable shards.
    """

    sums: StoredSums
    by_database: Mapping[str, StoredSums]
    at_s: float

    def of_database(self, name: str) -> StoredSums:
        """The amounts of one database: none for one that is newer than the last look."""
        return self.by_database.get(name, NOTHING)

    def encode(self) -> list[Argument]:
        """Fields and values of the hash, one after the other."""
        found: list[Argument] = []
        for field, value in self.sums._asdict().items():
            found += [field, value]
        found += ["databases", len(self.by_database), "at", f"{self.at_s:.3f}"]
        for name, sums in self.by_database.items():
            for field in _PER_DATABASE:
                found += [f"{field}:{name}", getattr(sums, field)]
        return found


def decode_stored(fields: Mapping[bytes, bytes]) -> StoredAmounts:
    """The amounts, from the fields of the hash. Raises Corrupt when they are none."""
    databases: dict[str, dict[str, int]] = {}
    sums: dict[str, int] = {}
    try:
        for field, value in fields.items():
            amount, of_database, name = field.decode().partition(":")
            if of_database and amount in _PER_DATABASE:
                databases.setdefault(name, {})[amount] = int(value)
            elif amount in StoredSums._fields:
                sums[amount] = int(value)
        at_s = float(fields[b"at"])
    except (ValueError, KeyError) as error:
        raise Corrupt(f"the stored amounts of a tenant cannot be read: {error!r}") from error
    return StoredAmounts(StoredSums(**sums), {name: StoredSums(**each) for name, each in databases.items()}, at_s)


class StoredTable:
    """The stored amounts of all tenants, in Redis. Everything raises Unavailable while Redis is away."""

    def __init__(self, redis: Redis, keys: Keys) -> None:
        self._redis = redis
        self._keys = keys

    async def read(self, tenant: str) -> StoredAmounts | None:
        """The amounts as the log service counted them last; None when it has not yet, because the tenant is new or
        Redis was lost. Raises Corrupt.
        """
        call = ("HGETALL", self._keys.stored(tenant))
        fields = await retry_idempotent(lambda: command(self._redis, *call), writes=False)
        return decode_stored(fields) if fields else None

    async def write(self, tenant: str, amounts: StoredAmounts) -> None:
        """Replaces the amounts of a tenant. Raises StorageFull when Redis has no room."""
        await STORED.run(self._redis, [self._keys.stored(tenant)], [LIFE_S, *amounts.encode()])
