"""Quotas: what a tenant may have and use, by its plan. Pure.

A *plan* is a named set of quotas. What a tenant may have follows from three layers, of which a later one wins, quota by
quota: the plan named `default` (if there is one), the tenant's own plan, and the overrides of the tenant. A database or
a collection may have overrides as well; what those mean depends on the quota:

- A quota of one request or one thing (`ids`, `dimensions`, `shards`) has one value: that of the nearest place which has
  one, the collection before the database before the tenant.
- An amount that is used up (records, bytes, requests per second, concurrency) is bounded at each place by itself: an
  override of a database bounds what is used there, and the tenant's quota bounds all of it together.

A quota that no layer names is bounded by nothing but the limits of the processes, which hold in any case.
"""

from __future__ import annotations

import enum
import math
from collections.abc import Mapping
from typing import Annotated, Final, TypeVar

import msgspec

from shared.tenancy.api_keys import TenantName

DEFAULT_PLAN: Final = "default"
"""The plan of tenants that have none, and below the plans of all others."""
PLACES_MAX: Final = 500
"""Most databases, and most collections, of one tenant that may have overrides."""
AMOUNT_MAX: Final = 2**53
"""Highest value of a quota: numbers above are not exact in JSON."""


class Quota(enum.StrEnum):
    """The name of a quota, as plans have it."""

    RECORDS = "records"
    BYTES = "bytes"

    DATABASES = "databases"
    COLLECTIONS = "collections"
    FORKS = "forks"
    FUNCTIONS = "functions"
    SHARDS = "shards"

    IDS = "ids"
    RESULTS = "results"
    QUERY_VECTORS = "query_vectors"
    SEARCHES = "searches"
    FACETS = "facets"
    DIMENSIONS = "dimensions"
    ID_BYTES = "id_bytes"
    NAME_BYTES = "name_bytes"
    DOCUMENT_BYTES = "document_bytes"
    URI_BYTES = "uri_bytes"
    COLLECTION_BYTES = "collection_bytes"
    METADATA_KEYS = "metadata_keys"
    METADATA_KEY_BYTES = "metadata_key_bytes"
    METADATA_VALUE_BYTES = "metadata_value_bytes"
    FILTER_CLAUSES = "filter_clauses"
    FILTER_VALUES = "filter_values"
    REGEXES = "regexes"
    REGEX_BYTES = "regex_bytes"

    READS_PER_S = "reads_per_s"
    WRITES_PER_S = "writes_per_s"
    BYTES_IN_PER_S = "bytes_in_per_s"
    BYTES_OUT_PER_S = "bytes_out_per_s"
    EMBEDDING_TOKENS_PER_S = "embedding_tokens_per_s"
    CONCURRENCY = "concurrency"


STORED: Final = frozenset({Quota.RECORDS, Quota.BYTES})
"""Quotas of what is stored."""

RATES: Final = frozenset(
    {
        Quota.READS_PER_S,
        Quota.WRITES_PER_S,
        Quota.BYTES_IN_PER_S,
        Quota.BYTES_OUT_PER_S,
        Quota.EMBEDDING_TOKENS_PER_S,
    }
)
"""Quotas of what is used in a second; the only ones that need not be whole numbers."""

USED_UP: Final = STORED | RATES | {Quota.CONCURRENCY}
"""Quotas that are used up at each place by itself."""

DESCRIPTIONS: Final[dict[Quota, str]] = {
    Quota.RECORDS: "records that are stored",
    Quota.BYTES: "logical bytes that are stored",
    Quota.DATABASES: "databases of the tenant",
    Quota.COLLECTIONS: "collections of a database",
    Quota.FORKS: "forks that a family of collections ever makes",
    Quota.FUNCTIONS: "collections of a database that are the output of a function",
    Quota.SHARDS: "shards of a collection",
    Quota.IDS: "records of a write; ids of a get or a delete",
    Quota.RESULTS: "results per query vector or search; records of a get",
    Quota.QUERY_VECTORS: "vectors or texts of a query",
    Quota.SEARCHES: "searches of a request",
    Quota.FACETS: "keys by which the searches of a request count facets or group",
    Quota.DIMENSIONS: "dimensions of an embedding",
    Quota.ID_BYTES: "bytes of an id",
    Quota.NAME_BYTES: "bytes of the name of a function",
    Quota.DOCUMENT_BYTES: "bytes of a document",
    Quota.URI_BYTES: "bytes of a uri",
    Quota.COLLECTION_BYTES: "bytes of a collection's metadata, configuration and schema",
    Quota.METADATA_KEYS: "metadata keys of a record",
    Quota.METADATA_KEY_BYTES: "bytes of a metadata key",
    Quota.METADATA_VALUE_BYTES: "bytes of a metadata value",
    Quota.FILTER_CLAUSES: "clauses of the filters of a request",
    Quota.FILTER_VALUES: "operands of `$in` and `$nin` in the filters of a request",
    Quota.REGEXES: "regular expressions in the filters of a request",
    Quota.REGEX_BYTES: "bytes of the regular expressions in the filters of a request",
    Quota.READS_PER_S: "requests per second that read",
    Quota.WRITES_PER_S: "requests per second that write",
    Quota.BYTES_IN_PER_S: "bytes of request bodies per second",
    Quota.BYTES_OUT_PER_S: "bytes of answers per second",
    Quota.EMBEDDING_TOKENS_PER_S: "tokens per second that are embedded for the tenant",
    Quota.CONCURRENCY: "requests that are worked on at once, in each frontend",
}

Amount = Annotated[float, msgspec.Meta(ge=0, le=AMOUNT_MAX)]
Quotas = dict[Quota, Amount | None]
"""Values by name. None says in so many words that the quota bounds nothing, whatever the layers below say."""

PlanName = Annotated[str, msgspec.Meta(pattern=r"\A[a-z0-9][a-z0-9_-]{0,63}\Z")]
_Places = Annotated[dict[str, Quotas], msgspec.Meta(max_length=PLACES_MAX)]


class QuotaPlan(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A control record of the kind `plans`."""

    name: PlanName
    quotas: Quotas = {}


class TenantRecord(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A control record of the kind `tenants`: the tenant's plan (None: the default alone), and overrides of its own, of
    databases by name and of collections by id.
    """

    tenant: TenantName
    plan: PlanName | None = None
    quotas: Quotas = {}
    databases: _Places = {}
    collections: _Places = {}

    def overridden(self, quotas: Quotas, database: str | None, collection: str | None) -> TenantRecord:
        """The record with these overrides in the place of those that a collection, else a database, else the tenant
        has. Raises ValueError when too many places would have some.
        """
        if collection is not None:
            changed = msgspec.structs.replace(self, collections=_with(self.collections, collection, quotas))
        elif database is not None:
            changed = msgspec.structs.replace(self, databases=_with(self.databases, database, quotas))
        else:
            changed = msgspec.structs.replace(self, quotas=quotas)
        for what, places in (("databases", changed.databases), ("collections", changed.collections)):
            if len(places) > PLACES_MAX:
                raise ValueError(f"At most {PLACES_MAX} {what} of a tenant may have quotas of their own")
        return changed

    @property
    def empty(self) -> bool:
        """Whether the record says nothing."""
        return self.plan is None and not (self.quotas or self.databases or self.collections)


def _with(places: Mapping[str, Quotas], name: str, quotas: Quotas) -> dict[str, Quotas]:
    others = {each: of for each, of in places.items() if each != name}
    return others | {name: quotas} if quotas else others


_Record = TypeVar("_Record", QuotaPlan, TenantRecord)
_PLAN: Final = msgspec.json.Decoder(QuotaPlan)
_TENANT: Final = msgspec.json.Decoder(TenantRecord)


def decode_plan(data: bytes) -> QuotaPlan:
    """The plan with these bytes. Raises ValueError for bytes that are none."""
    plan = _decoded(_PLAN, data)
    check_quotas(plan.quotas)
    return plan


def decode_tenant(data: bytes) -> TenantRecord:
    """The tenant's record with these bytes. Raises ValueError for bytes that are none."""
    record = _decoded(_TENANT, data)
    for quotas in (record.quotas, *record.databases.values(), *record.collections.values()):
        check_quotas(quotas)
    return record


def _decoded(decoder: msgspec.json.Decoder[_Record], data: bytes) -> _Record:
    try:
        return decoder.decode(data)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise ValueError(str(error)) from error


def check_quotas(quotas: Quotas) -> None:
    """Raises ValueError for a number that a quota cannot have."""
    for quota, amount in quotas.items():
        if amount is None:
            continue
        if not math.isfinite(amount) or (quota not in RATES and not float(amount).is_integer()):
            raise ValueError(f"{quota}: expected a whole number, got {amount}")


def shown_amount(amount: float) -> int | float:
    """The amount as people write it: a whole number without a fraction."""
    return int(amount) if float(amount).is_integer() else amount


def shown_quotas(quotas: Mapping[Quota, float | None]) -> dict[str, int | float | None]:
    """Quotas as clients see them, in the order of their names in `Quota`."""
    return {
        quota.value: None if (amount := quotas[quota]) is None else shown_amount(amount)
        for quota in Quota
        if quota in quotas
    }


def merged(*layers: Mapping[Quota, float | None]) -> dict[Quota, float | None]:
    """The quotas of layers together; a later one wins."""
    result: dict[Quota, float | None] = {}
    for layer in layers:
        result.update(layer)
    return result


class Resolved:
    """The quotas of a tenant, its databases and its collections, with all layers put together."""

    def __init__(
        self, default: Mapping[Quota, float | None], plan: Mapping[Quota, float | None], record: TenantRecord
    ) -> None:
        self.record = record
        self.tenant: Final = merged(default, plan, record.quotas)

    def effective(self, database: str | None = None, collection: str | None = None) -> dict[Quota, float | None]:
        """The values of all quotas at a place, the tenant's when nothing else is named; of those that are used up, the
        lowest among the places around it.
        """
        layers = self._layers(database, collection)
        found = merged(*layers)
        for quota in USED_UP.intersection(found):
            amounts = [amount for layer in layers if (amount := layer.get(quota)) is not None]
            found[quota] = min(amounts) if amounts else None
        return found

    def _layers(self, database: str | None, collection: str | None) -> list[Mapping[Quota, float | None]]:
        of_database = self.record.databases.get(database, {}) if database is not None else {}
        of_collection = self.record.collections.get(collection, {}) if collection is not None else {}
        return [self.tenant, of_database, of_collection]
