"""The quotas of tenants in the form in which a frontend goes by them. Pure."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Final

from frontend.request_limits import RequestLimits
from shared.catalog.quotas import quota_exceeded
from shared.errors import LimitExceeded, PolychromeError
from shared.tenancy.actions import Action
from shared.tenancy.quotas import RATES, STORED, Quota, Resolved

_LIMITS: Final[dict[Quota, tuple[str, ...]]] = {
    Quota.IDS: ("records", "ids"),
    Quota.QUERY_VECTORS: ("vectors or texts",),
    Quota.SEARCHES: ("searches",),
    Quota.FACETS: ("keys of facets and groups",),
    Quota.DIMENSIONS: ("dimensions",),
    Quota.ID_BYTES: ("bytes of a record's id",),
    Quota.NAME_BYTES: ("bytes of a name",),
    Quota.DOCUMENT_BYTES: ("bytes of a record's document",),
    Quota.URI_BYTES: ("bytes of a record's uri",),
    Quota.COLLECTION_BYTES: ("bytes",),
    Quota.METADATA_KEYS: ("metadata keys",),
    Quota.METADATA_KEY_BYTES: ("bytes of a metadata key",),
    Quota.METADATA_VALUE_BYTES: ("bytes of a metadata value",),
    Quota.FILTER_CLAUSES: ("clauses",),
    Quota.FILTER_VALUES: ("values of $in and $nin",),
    Quota.REGEXES: ("regular expressions",),
    Quota.REGEX_BYTES: ("bytes of regular expressions",),
}
"""Quotas that lower a limit of requests, the member of RequestLimits with the quota's name; and the words that the
limit's refusal has for it.
"""

_WORDS: Final[dict[Quota, str]] = {
    Quota.RECORDS: "Number of records",
    Quota.BYTES: "Stored bytes",
    Quota.FUNCTIONS: "Number of functions",
    Quota.SHARDS: "Number of shards",
    Quota.RESULTS: "Number of results",
}
"""The words for other quotas that are checked here, in messages."""

LOWERED: Final = frozenset(_LIMITS)
_ACCOUNTED: Final = RATES | {Quota.CONCURRENCY}


PLACES_MAX: Final = 1024
"""Most places of a tenant whose quotas are remembered."""

Place = tuple[str, ...]
"""A tenant, or its name and that of a database, or its name, an empty one and the id of a collection."""


@dataclass(frozen=True, slots=True)
class PlaceQuotas:
    """The quotas that hold for requests at one place. `limits`: what a request there may hold; `lowered`: the
    words for those of its limits that quotas have lowered. `accounts`: the rates
    and the concurrency of each place around it that bounds them by itself; `stored` likewise what may be stored.
    """

    values: Mapping[Quota, float | None]
    limits: RequestLimits | None
    lowered: frozenset[str]
    accounts: tuple[tuple[Place, Mapping[Quota, float]], ...]
    stored: tuple[tuple[Place, Mapping[Quota, float]], ...]

    def most(self, quota: Quota) -> float:
        """The value of a quota; infinity when nothing bounds it."""
        value = self.values.get(quota)
        return math.inf if value is None else value

    def lower(self, quota: Quota, most: int) -> int:
        """The lower one of a quota's value and the process's own limit."""
        return int(min(self.most(quota), most))

    def check(self, quota: Quota, usage: float, actions: Collection[Action], most: float | None = None) -> None:
        """Raises QuotaExceeded when a request with these actions would make the usage more than `most`, or else than
        the quota allows.
        """
        most = self.most(quota) if most is None else most
        if usage > most:
            raise quota_exceeded(_WORDS[quota], action_words(actions), int(usage), int(most))

    def refusal(self, error: PolychromeError, actions: Collection[Action]) -> PolychromeError:
        """The error as the client gets it: that of a quota for a limit that a quota has lowered. `actions` are those of
        the request.
        """
        if isinstance(error, LimitExceeded) and error.limit in self.lowered:
            return quota_exceeded(error.limit, action_words(actions), error.value, error.most)
        return error


NO_QUOTAS: Final = PlaceQuotas({}, None, frozenset(), (), ())


def action_words(actions: Collection[Action]) -> str:
    """An action as messages about quotas have it; of several the first by name."""
    return min((action.name for action in actions), default="").replace("_", " ").capitalize()


class TenantQuotas:
    """The quotas of a tenant, with those of each of its places; `limits` are the process's own."""

    def __init__(self, resolved: Resolved, limits: RequestLimits) -> None:
        self._resolved = resolved
        self._limits = limits
        self.has_collections = bool(resolved.record.collections)
        """Whether any collection has quotas of its own."""
        self._places: dict[tuple[str | None, str | None], PlaceQuotas] = {}

    def at(self, database: str | None, collection: str | None) -> PlaceQuotas:
        """The quotas of a collection (by its id), else of a database, else of the tenant."""
        record = self._resolved.record
        own_database = database if database in record.databases else None
        own_collection = collection if collection in record.collections else None
        found = self._places.get((own_database, own_collection))
        if found is None:
            if len(self._places) >= PLACES_MAX:  # a path may name any collection in any database
                self._places.clear()
            found = self._places[own_database, own_collection] = self._made(own_database, own_collection)
        return found

    def _made(self, database: str | None, collection: str | None) -> PlaceQuotas:
        values = self._resolved.effective(database, collection)
        layers = list(self._layers(database, collection))
        lowered = {quota: int(value) for quota in LOWERED if (value := values.get(quota)) is not None}
        return PlaceQuotas(
            values,
            lowered_limits(self._limits, lowered),
            frozenset(
                words
                for quota, value in lowered.items()
                for words in _LIMITS[quota]
                if value < getattr(self._limits, f"{quota}_max")
            ),
            tuple((place, found) for place, of in layers if (found := _some(of, _ACCOUNTED))),
            tuple((place, found) for place, of in layers if (found := _some(of, STORED))),
        )

    def _layers(self, database: str | None, collection: str | None) -> list[tuple[Place, Mapping[Quota, float | None]]]:
        record = self._resolved.record
        layers: list[tuple[Place, Mapping[Quota, float | None]]] = [((record.tenant,), self._resolved.tenant)]
        if database is not None:
            layers.append(((record.tenant, database), record.databases[database]))
        if collection is not None:
            layers.append(((record.tenant, "", collection), record.collections[collection]))
        return layers


def lowered_limits(limits: RequestLimits, lowered: Mapping[Quota, int]) -> RequestLimits:
    """The limits of requests, none of them above a quota of its name."""
    own = {field.name: getattr(limits, field.name) for field in dataclasses.fields(RequestLimits)}
    return RequestLimits(**own | {f"{quota}_max": min(own[f"{quota}_max"], most) for quota, most in lowered.items()})


def _some(layer: Mapping[Quota, float | None], quotas: frozenset[Quota]) -> dict[Quota, float]:
    return {quota: value for quota in quotas if (value := layer.get(quota)) is not None}
