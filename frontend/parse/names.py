"""The rules for the names of new databases and tenants. The first rule that a name breaks decides the message."""

from __future__ import annotations

import json
from typing import Final

from shared.catalog.names import TOPOLOGY_MARK, name_problem
from shared.errors import InvalidArgument

TENANT_NAME_LENGTH_MIN: Final = 3


def check_new_database_name(name: str) -> None:
    """Raises InvalidArgument."""
    problem = name_problem(name)
    if problem:
        raise InvalidArgument(problem)


def check_new_tenant_name(name: str) -> None:
    """Raises InvalidArgument for fewer than three characters; any characters will do."""
    if len(name) < TENANT_NAME_LENGTH_MIN:
        shown = json.dumps(name, ensure_ascii=False)
        raise InvalidArgument(
            f'Validation error: name: Validation error: length [{{"value": String({shown}), "min": Number(3)}}]'
        )


def is_multi_region(database: str) -> bool:
    """Whether the database is called `topology+name`."""
    return TOPOLOGY_MARK in database
