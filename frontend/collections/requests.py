"""Bodies of the collection routes: read, checked, and turned into what the catalog stores."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import msgspec
import orjson

from frontend.collections.configuration import (
    ConfigurationChange,
    GivenConfiguration,
    VectorSettings,
    changed_settings,
    check_change,
    fixed_settings,
    settings_from_request,
    shown_configuration,
)
from frontend.collections.metadata_rules import (
    Metadata,
    history_problem,
    metadata_problem,
    shards_problem,
    stored_metadata,
)
from frontend.collections.schema import Schema, default_schema, indexing_of, reconciled, settings_of, with_settings
from frontend.collections.schema_rules import schema_problem
from frontend.collections.schema_shape import GivenSchema, given_schema
from frontend.parse.shapes import shaped
from frontend.parse.writes import refuse_fields
from frontend.request_limits import DEFAULT_LIMITS, RequestLimits, check_limit
from shared.catalog import SHARDS_KEY, Collection, Function, NewCollection
from shared.catalog.functions import OUTPUT_DIMENSION
from shared.catalog.names import name_problem

CREATED: Final = ("metadata", "configuration", "schema")
UPDATED: Final = ("new_metadata", "new_configuration")
"""The members of the bodies that a collection's row keeps, beside its name."""


class CollectionCreate(msgspec.Struct, frozen=True, kw_only=True):
    """Body of POST .../collections. The schema is shaped by itself, because it has an older spelling."""

    name: str
    metadata: dict[str, Any] | None = None
    configuration: GivenConfiguration | None = None
    schema: Any = None
    get_or_create: bool = False


class CollectionUpdate(msgspec.Struct, frozen=True, kw_only=True):
    """Body of PUT .../collections/{collection_id}."""

    new_name: str | None = None
    new_metadata: dict[str, Any] | None = None
    new_configuration: ConfigurationChange | None = None


@dataclass(frozen=True, slots=True)
class Creation:
    """A create request of the right shape."""

    body: CollectionCreate
    metadata: Metadata | None
    schema: GivenSchema | None


@dataclass(frozen=True, slots=True)
class Update:
    """An update request of the right shape. `metadata` is what to store if the body has metadata at all."""

    body: CollectionUpdate
    metadata: Metadata | None


def check_size(tree: Any, members: Sequence[str], limits: RequestLimits) -> None:
    """Raises LimitExceeded when what a row would keep of the request, those `members` of its body, is too long as
    JSON.
    """
    given = tree if isinstance(tree, dict) else {}
    size = sum(len(orjson.dumps(given[member])) for member in members if given.get(member) is not None)
    check_limit("bytes", size, limits.collection_bytes_max, ", ".join(members))


def read_creation(tree: Any, limits: RequestLimits = DEFAULT_LIMITS) -> Creation:
    """The create request in a JSON tree. Checks its shape and size alone. Raises WrongShape, LimitExceeded."""
    check_size(tree, CREATED, limits)
    body = shaped(tree, CollectionCreate)
    metadata = None if body.metadata is None else stored_metadata(body.metadata)
    return Creation(body, metadata or None, given_schema(body.schema))


def new_collection(creation: Creation, shards_default: int, shards_max: int) -> NewCollection:
    """The collection to store in the catalog. Raises InvalidArgument; of several reasons, for the first in the order of
    docs/wire.md, section 2.
    """
    body = creation.body
    settings = settings_from_request(body.configuration, creation.metadata)
    refuse_fields(
        {
            "name": name_problem(body.name),
            "metadata": None if body.metadata is None else _metadata_problem(body.metadata, shards_max),
            "schema": None if creation.schema is None else schema_problem(creation.schema),
        }
    )
    schema, settings = reconciled(creation.schema, settings)
    return NewCollection(
        name=body.name,
        metadata=creation.metadata,
        configuration=shown_configuration(settings),
        schema=schema,
        fixed=fixed_settings(settings, (creation.metadata or {}).get(SHARDS_KEY, shards_default))
        | indexing_of(schema).fixed_member(),
    )


def function_output(name: str, function_name: str, function: str, given: str) -> NewCollection:
    """The collection that is the output of a new function, whose input is the collection `given`. Raises
    InvalidArgument.
    """
    refuse_fields(
        {"name": None if function_name else "Function name cannot be empty", "output_collection": name_problem(name)}
    )
    settings = VectorSettings()
    return NewCollection(
        name=name,
        metadata=None,
        configuration=shown_configuration(settings),
        schema=default_schema(settings),
        fixed=fixed_settings(settings, shards=1),
        dimension=OUTPUT_DIMENSION,
        function=Function(str(uuid.uuid4()), function_name, function, {}, (given,)),
    )


def _metadata_problem(given: Metadata, shards_max: int) -> str | None:
    return metadata_problem(given) or shards_problem(given, shards_max) or history_problem(given)


def read_update(tree: Any, limits: RequestLimits = DEFAULT_LIMITS) -> Update:
    """The update request in a JSON tree. Checks its shape and size alone. Raises WrongShape, LimitExceeded."""
    check_size(tree, UPDATED, limits)
    body = shaped(tree, CollectionUpdate)
    metadata = None if body.new_metadata is None else stored_metadata(body.new_metadata, null_removes=True)
    return Update(body, metadata or None)


def check_update(update: Update, shards_max: int) -> None:
    """Checks what does not depend on the collection. Raises InvalidArgument for an update that no collection takes."""
    body = update.body
    if body.new_configuration is not None:
        check_change(body.new_configuration)
    refuse_fields(
        {
            "new_name": None if body.new_name is None else name_problem(body.new_name),
            "new_metadata": None if body.new_metadata is None else _metadata_problem(body.new_metadata, shards_max),
        }
    )


def shards_wanted(update: Update) -> int:
    """The shards that an update asks for, 0 when it leaves them as they are; of a checked or an unchecked update."""
    wanted = (update.metadata or {}).get(SHARDS_KEY, 0)
    return wanted if type(wanted) is int else 0


def check_shards(update: Update, collection: Collection) -> None:
    """Raises InvalidArgument for an update that asks for fewer shards than the collection has, or is getting."""
    least = collection.shards_to_be
    if (update.metadata or {}).get(SHARDS_KEY, least) < least:
        refuse_fields({"new_metadata": f"{SHARDS_KEY} cannot be lowered, the collection has {least} shards"})


def changed_vectors(collection: Collection, change: ConfigurationChange) -> tuple[dict[str, Any], Schema]:
    """The collection's configuration and base schema after the change."""
    settings: VectorSettings = changed_settings(settings_of(collection.schema), change)
    return shown_configuration(settings), with_settings(collection.schema, settings)
