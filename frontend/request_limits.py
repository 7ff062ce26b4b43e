"""Limits of what a request may hold, each of them a setting, and the relations between them.

A limit bounds one request, the same for everybody, so that none can hurt a process (a quota bounds what a tenant has).
Everything is counted before anything is built from it, and a request that is over a limit is refused with
`LimitExceeded`, which names the limit, the value and where it was found. The defaults are far above what clients are
known to send: 100,000 records in a request, a get of 39,000 ids, documents of megabytes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from shared import limits
from shared.errors import LimitExceeded
from shared.process.config import parse_positive, setting


def _limit(name: str, doc: str, default: int) -> int:
    described: int = setting(f"POLYCHROME_FRONTEND_{name}_MAX", doc, default=default, parse=parse_positive)
    return described


ENCODED_BYTES_MAX: Final = 3
"""Bytes that a byte of a name may take in a path, percent-encoded."""


@dataclass(frozen=True)
class RequestLimits:
    """The limits of a request. Members that count bytes count those of UTF-8."""

    path_bytes_max: int = _limit("PATH_BYTES", "Bytes of a request's path and query, as sent.", limits.PATH_BYTES_MAX)
    header_bytes_max: int = _limit("HEADER_BYTES", "Bytes of a request's headers.", limits.HEADER_BYTES_MAX)
    json_containers_max: int = _limit(
        "JSON_CONTAINERS", "Objects and arrays in a request body, at any depth.", limits.JSON_CONTAINERS_MAX
    )
    json_members_max: int = _limit("JSON_MEMBERS", "Members of all objects in a request body.", limits.JSON_MEMBERS_MAX)
    json_values_max: int = _limit(
        "JSON_VALUES", "Values in a request body, the numbers of embeddings included.", limits.JSON_VALUES_MAX
    )
    name_bytes_max: int = _limit(
        "NAME_BYTES",
        "Bytes of the name or resource name of a tenant, and of the name of a function.",
        limits.NAME_BYTES_MAX,
    )
    collection_bytes_max: int = _limit(
        "COLLECTION_BYTES",
        "Bytes of a collection's metadata, configuration and schema together, as JSON.",
        limits.COLLECTION_BYTES_MAX,
    )
    tenants_max: int = _limit("TENANTS", "Tenants of the cluster; more are refused with 422.", limits.TENANTS_MAX)
    databases_max: int = _limit("DATABASES", "Databases of a tenant; more are refused with 422.", limits.DATABASES_MAX)
    collections_max: int = _limit(
        "COLLECTIONS", "Collections of a database; more are refused with 422.", limits.COLLECTIONS_MAX
    )
    ids_max: int = _limit("IDS", "Records of a write, and ids of a get or a delete.", limits.IDS_MAX)
    id_bytes_max: int = _limit("ID_BYTES", "Bytes of a record's id.", limits.ID_BYTES_MAX)
    document_bytes_max: int = _limit("DOCUMENT_BYTES", "Bytes of a record's document.", limits.DOCUMENT_BYTES_MAX)
    uri_bytes_max: int = _limit("URI_BYTES", "Bytes of a record's uri.", limits.URI_BYTES_MAX)
    dimensions_max: int = _limit("DIMENSIONS", "Dimensions of an embedding.", limits.DIMENSIONS_MAX)
    metadata_keys_max: int = _limit("METADATA_KEYS", "Metadata keys of a record.", limits.METADATA_KEYS_MAX)
    metadata_key_bytes_max: int = _limit(
        "METADATA_KEY_BYTES", "Bytes of a metadata key.", limits.METADATA_KEY_BYTES_MAX
    )
    metadata_pairs_max: int = _limit(
        "METADATA_PAIRS",
        "Pairs of a metadata key and a type of value that all records of a collection may have. A write that brings "
        "more is refused with 422.",
        limits.METADATA_PAIRS_MAX,
    )
    metadata_value_bytes_max: int = _limit(
        "METADATA_VALUE_BYTES",
        "Bytes of a metadata value, a string or an array of strings.",
        limits.METADATA_VALUE_BYTES_MAX,
    )
    filter_clauses_max: int = _limit(
        "FILTER_CLAUSES", "Clauses of all filters of a request, `$and` and `$or` included.", limits.FILTER_CLAUSES_MAX
    )
    filter_values_max: int = _limit(
        "FILTER_VALUES", "Operands of `$in` and `$nin` in all filters of a request.", limits.FILTER_VALUES_MAX
    )
    filter_bytes_max: int = _limit(
        "FILTER_BYTES", "Bytes of all keys and operands in the filters of a request.", limits.FILTER_BYTES_MAX
    )
    regexes_max: int = _limit("REGEXES", "Regular expressions in the filters of a request.", limits.REGEXES_MAX)
    regex_bytes_max: int = _limit(
        "REGEX_BYTES", "Bytes of all regular expressions in the filters of a request.", limits.REGEX_BYTES_MAX
    )
    query_vectors_max: int = _limit("QUERY_VECTORS", "Vectors or texts of a query.", limits.QUERY_VECTORS_MAX)
    results_max: int = _limit(
        "RESULTS",
        "Records that a request may ask for beside its largest vector or search: vectors times `n_results`, the sum of "
        "the searches' limits and of their facets'. One that comes with its document, metadata, uri or embedding "
        "counts for ten; nothing counts for more than the collection has positions.",
        limits.RESULTS_MAX,
    )
    searches_max: int = _limit("SEARCHES", "Searches of a request.", limits.SEARCHES_MAX)
    facets_max: int = _limit(
        "FACETS", "Keys by which all searches of a request count facets or group.", limits.FACETS_MAX
    )

    def problems(self) -> list[str]:
        """The relations between the settings that do not hold, in sentences."""
        relations = (
            (self.id_bytes_max <= self.filter_bytes_max, "ID_BYTES_MAX is above FILTER_BYTES_MAX: no id can be found"),
            (self.regex_bytes_max <= self.filter_bytes_max, "REGEX_BYTES_MAX is above FILTER_BYTES_MAX"),
            (self.metadata_keys_max <= self.json_members_max, "METADATA_KEYS_MAX is above JSON_MEMBERS_MAX"),
            (self.ids_max <= self.json_values_max, "IDS_MAX is above JSON_VALUES_MAX"),
            (
                ENCODED_BYTES_MAX * self.name_bytes_max < self.path_bytes_max,
                "NAME_BYTES_MAX is above a third of PATH_BYTES_MAX: a tenant of such a name could not be reached",
            ),
        )
        return [f"POLYCHROME_FRONTEND_{problem}" for holds, problem in relations if not holds]


DEFAULT_LIMITS: Final = RequestLimits()


def check_limit(limit: str, value: int, most: int, where: str) -> None:
    """Raises LimitExceeded when `value` of `limit` (in words, such as "bytes of an id") is above `most`; `where` says
    in what part of the request.
    """
    if value > most:
        raise LimitExceeded(limit, value, most, where)
