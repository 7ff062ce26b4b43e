"""Tenants, databases and collections as values."""

from __future__ import annotations

import dataclasses
import enum
from dataclasses import dataclass
from typing import Any, Final

from shared.cluster.placement import Layout
from shared.log.state import Pointer
from shared.records.model import FIRST_POSITION

DEFAULT_TENANT: Final = "default_tenant"
DEFAULT_DATABASE: Final = "default_database"
DEFAULT_DATABASE_ID: Final = "00000000-0000-0000-0000-000000000000"


SHARDS_KEY: Final = "polychrome:shards"
"""The metadata key by which a client says how many shards a collection shall have at least."""


class Unset(enum.Enum):
    """The type of UNSET, which means "leave it as it is" where None is a value."""

    UNSET = "unset"


UNSET: Final = Unset.UNSET


@dataclass(frozen=True, slots=True)
class Tenant:
    """A tenant. `resource_name`, which can be set once, is the first part of its collections' resource names."""

    name: str
    resource_name: str | None


@dataclass(frozen=True, slots=True)
class Database:
    """A database of a tenant. `key` is unique for ever; `id` is what clients see (the default database's is always
    zero).
    """

    id: str
    key: str
    name: str
    tenant: str


@dataclass(frozen=True, slots=True)
class Function:
    """An attached function: it computes a collection, its output, from other collections, its inputs. `function` names
    the computation, `name` and `params` are the client's, `inputs` are ids: none of them is left once it was detached.
    """

    id: str
    name: str
    function: str
    params: dict[str, Any]
    inputs: tuple[str, ...]

    def encode(self) -> dict[str, Any]:
        """The form in which a row has it."""
        return dataclasses.asdict(self)

    @classmethod
    def decode(cls, fields: dict[str, Any]) -> Function:
        """The function in a row, which `encode` put there."""
        return cls(**{**fields, "inputs": tuple(fields["inputs"])})


@dataclass(frozen=True, slots=True)
class Rebuild:
    """The layout that a collection is getting, and how far it is: `built` of its shards have segments of their own;
    `pointers` and `written` are those of its shards, as in `Collection`.
    """

    layout: Layout
    built: int
    pointers: tuple[Pointer | None, ...]
    written: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Collection:
    """A catalog row together with the collection's state, read one after the other: `generation` is the row's.

    `schema` is the base schema as created; `keys` are the (metadata key, value type) pairs written since. `fixed` never
    changes (space, shards at creation, ef_construction, max_neighbors). `head` is the next position. `pointers` and
    `written` are those of the shards in `layout`: the committed manifest of each, and the position of its newest log
    entry, 0 where there is none. `appended` and `trimmed` count operations of all shards, since the collection was
    created or Redis was lost: unlike positions they have no gaps.
    """

    id: str
    name: str
    tenant: str
    database: str
    database_key: str
    metadata: dict[str, Any] | None
    configuration: dict[str, Any]
    schema: dict[str, Any]
    layout: Layout
    generation: int
    dimension: int | None
    head: int
    keys: frozenset[tuple[str, str]]
    pointers: tuple[Pointer | None, ...]
    fixed: dict[str, Any]
    written: tuple[int, ...]
    appended: int = 0
    trimmed: int = 0
    rebuild: Rebuild | None = None
    laid_s: float = 0.0
    """Time at which the present layout began, in seconds since the epoch."""
    cut: int | None = None
    """The position up to which its shards are compacted in the present round (`shared.log.cuts`); None: no cut yet."""
    root_position: int | None = None
    """The cut of which a root was written last; None before the first."""
    versions_before: int = 0
    """The sum of the manifests' versions that its earlier shards had."""
    ancestors: tuple[str, ...] = ()
    """The collections that a fork comes from, the family's root first, its origin last. They may be gone. Empty: no
    fork.
    """

    function: Function | None = None
    """The function whose output it is."""
    feeds: str | None = None
    """The id of the output when this is the input of a function, as far as the state knows it (`shared.log.outputs`).
    """
    counted: int = 0
    """The sum of the manifests' versions that the function has seen whose input this is; else 0."""
    runs: int = 0
    """The number of runs of the function whose input this is; else 0."""
    epoch: int = 0
    """The epoch of its last restoration; 0: none yet."""

    @property
    def root(self) -> str:
        """The id of its family's root: the collection that it descends from, which is itself when it is no fork."""
        return self.ancestors[0] if self.ancestors else self.id

    @property
    def rooted(self) -> bool:
        """Whether a root names all that was compacted. A collection of one shard needs none, and so does one of which
        nothing may be compacted yet.
        """
        return self.layout.count == 1 or self.cut == FIRST_POSITION or (self.cut or 0) == self.root_position

    @property
    def shards(self) -> int:
        """Number of shards that it has."""
        return self.layout.count

    @property
    def shards_to_be(self) -> int:
        """Number of shards that it is getting, or that it has when it is getting none."""
        return self.rebuild.layout.count if self.rebuild else self.layout.count

    @property
    def shards_wanted(self) -> int:
        """Number of shards that its metadata asks for, if that is more than it is going to have; else 0."""
        wanted = (self.metadata or {}).get(SHARDS_KEY, 0)
        return wanted if isinstance(wanted, int) and wanted > self.shards_to_be else 0

    @property
    def log_position(self) -> int:
        """The last position up to which all is compacted. A shard with nothing left to compact does not count."""
        covered = self.head - 1
        for pointer, written in zip(self.pointers, self.written, strict=True):
            covers = pointer.covers if pointer else 1
            if written >= covers:
                covered = min(covered, covers - 1)
        return covered

    @property
    def indexed(self) -> int:
        """Number of the `appended` operations that are compacted for sure: a compaction counts once its part of the log
        is trimmed, or when nothing is left.
        """
        return self.appended if self.log_position == self.head - 1 else self.trimmed

    @property
    def version(self) -> int:
        """Grows with every compaction of any shard; of a function's input, as soon as the function has seen it."""
        return self.runs + (self.compactions if self.feeds is None else self.counted)

    @property
    def compactions(self) -> int:
        """The sum of the manifests' versions that its shards ever had."""
        return self.versions_before + sum(pointer.version for pointer in self.pointers if pointer)


@dataclass(frozen=True)
class NewCollection:
    """A collection that is to be created, as its creator wants it; the members mean what they do in `Collection`."""

    name: str
    metadata: dict[str, Any] | None
    configuration: dict[str, Any]
    schema: dict[str, Any]
    fixed: dict[str, Any]
    ancestors: tuple[str, ...] = ()
    dimension: int | None = None
    function: Function | None = None
