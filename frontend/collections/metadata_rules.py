"""The metadata of a collection: how it is stored, and what is refused. Its values obey the rules of records'
metadata.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from frontend.parse.metadata_values import read_metadatas
from frontend.parse.sparse import SparseVector, read_sparse
from shared.catalog import SHARDS_KEY
from shared.catalog.history import HISTORY_KEY, HISTORY_S_MAX

Metadata = dict[str, Any]


def stored_metadata(given: Mapping[str, Any], *, null_removes: bool = False) -> Metadata:
    """The metadata as it is stored and shown. With `null_removes`, members that are null are left out; otherwise a null
    raises WrongShape, as values of other wrong types do.
    """
    row = read_metadatas([dict(given)], patch=null_removes).rows[0] or {}
    return {key: _shown(value) for key, value in row.items() if value is not None}


def _shown(value: Any) -> Any:
    """Sparse vectors are shown with all their members."""
    return msgspec.to_builtins(value) if isinstance(value, SparseVector) else value


def metadata_problem(given: Mapping[str, Any]) -> str | None:
    """Why this metadata is refused although its shape is right, None when it is fine."""
    if not given:
        return "Metadata cannot be empty"
    return next((problem for key, value in given.items() if (problem := _entry_problem(key, value))), None)


def shards_problem(given: Mapping[str, Any], shards_max: int) -> str | None:
    """Why the number of shards that a collection's metadata asks for is refused, None when it is fine or not there."""
    shards = given.get(SHARDS_KEY)
    if shards is None or (type(shards) is int and 1 <= shards <= shards_max):
        return None
    return f"{SHARDS_KEY} must be an integer from 1 to {shards_max}"


def history_problem(given: Mapping[str, Any]) -> str | None:
    """Why the history that a collection's metadata asks for is refused, None when it is fine or not there."""
    history_s = given.get(HISTORY_KEY)
    if history_s is None or (type(history_s) is int and 0 <= history_s <= HISTORY_S_MAX):
        return None
    return f"{HISTORY_KEY} must be an integer from 0 to {HISTORY_S_MAX}"


def _entry_problem(key: str, value: Any) -> str | None:
    if not key:
        return "Metadata key cannot be empty"
    if key.startswith(("#", "$")):
        return f"Metadata key cannot start with '#' or '$': {key}"
    return read_sparse(value).problem() if isinstance(value, dict) else None
