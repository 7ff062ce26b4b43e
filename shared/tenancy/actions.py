"""Actions: what a principal may be allowed to do, by the names that Chroma's server has for them, and roles, which are
named sets of actions. What Chroma has no name for (its own API cannot do it) is named in the same way.
"""

from __future__ import annotations

import enum
from typing import Final


class Action(enum.StrEnum):
    """A thing that a request does. The part before the colon says what it is done to."""

    RESET = "system:reset"
    GET_PLAN = "system:get_plan"
    SET_PLAN = "system:set_plan"

    CREATE_TENANT = "tenant:create_tenant"
    GET_TENANT = "tenant:get_tenant"
    UPDATE_TENANT = "tenant:update_tenant"
    LIST_TENANTS = "tenant:list_tenants"
    DELETE_TENANT = "tenant:delete_tenant"
    READ_AUDIT = "tenant:read_audit"
    LIST_KEYS = "tenant:list_keys"
    CREATE_KEY = "tenant:create_key"
    REVOKE_KEY = "tenant:revoke_key"
    GET_QUOTAS = "tenant:get_quotas"
    SET_QUOTAS = "tenant:set_quotas"
    GET_USAGE = "tenant:get_usage"
    ERASE = "tenant:erase"

    CREATE_DATABASE = "db:create_database"
    GET_DATABASE = "db:get_database"
    DELETE_DATABASE = "db:delete_database"
    LIST_DATABASES = "db:list_databases"
    LIST_COLLECTIONS = "db:list_collections"
    COUNT_COLLECTIONS = "db:count_collections"
    CREATE_COLLECTION = "db:create_collection"
    GET_OR_CREATE_COLLECTION = "db:get_or_create_collection"

    GET_COLLECTION = "collection:get_collection"
    GET_COLLECTION_BY_CRN = "collection:get_collection_by_crn"
    UPDATE_COLLECTION = "collection:update_collection"
    DELETE_COLLECTION = "collection:delete_collection"
    FORK_COLLECTION = "collection:fork_collection"
    COUNT_FORKS = "collection:count_forks"
    ADD = "collection:add"
    DELETE = "collection:delete"
    GET = "collection:get"
    QUERY = "collection:query"
    COUNT = "collection:count"
    UPDATE = "collection:update"
    UPSERT = "collection:upsert"
    SEARCH = "collection:search"
    INDEXING_STATUS = "collection:indexing_status"
    CREATE_ATTACHED_FUNCTION = "collection:create_attached_function"
    REMOVE_ATTACHED_FUNCTION = "collection:remove_attached_function"


class Role(enum.StrEnum):
    """A set of actions with a name. Each role but the first has all that the role before it has."""

    READ = "read"
    WRITE = "write"
    ADMIN = "admin"
    """Everything within one tenant, its keys included."""
    SYSTEM = "system"
    """Everything, tenants themselves included."""


READ_ACTIONS: Final = frozenset(
    {
        Action.GET_TENANT,
        Action.GET_DATABASE,
        Action.LIST_DATABASES,
        Action.LIST_COLLECTIONS,
        Action.COUNT_COLLECTIONS,
        Action.GET_COLLECTION,
        Action.GET_COLLECTION_BY_CRN,
        Action.COUNT_FORKS,
        Action.GET,
        Action.QUERY,
        Action.COUNT,
        Action.SEARCH,
        Action.INDEXING_STATUS,
    }
)
WRITE_ACTIONS: Final = READ_ACTIONS | {
    Action.CREATE_COLLECTION,
    Action.GET_OR_CREATE_COLLECTION,
    Action.UPDATE_COLLECTION,
    Action.DELETE_COLLECTION,
    Action.FORK_COLLECTION,
    Action.ADD,
    Action.DELETE,
    Action.UPDATE,
    Action.UPSERT,
    Action.CREATE_ATTACHED_FUNCTION,
    Action.REMOVE_ATTACHED_FUNCTION,
}
ADMIN_ACTIONS: Final = WRITE_ACTIONS | {
    Action.UPDATE_TENANT,
    Action.CREATE_DATABASE,
    Action.DELETE_DATABASE,
    Action.READ_AUDIT,
    Action.LIST_KEYS,
    Action.CREATE_KEY,
    Action.REVOKE_KEY,
    Action.GET_QUOTAS,
    Action.GET_USAGE,
    Action.ERASE,
}
SYSTEM_ACTIONS: Final = frozenset(Action)

ACTIONS_OF: Final[dict[Role, frozenset[Action]]] = {
    Role.READ: READ_ACTIONS,
    Role.WRITE: WRITE_ACTIONS,
    Role.ADMIN: ADMIN_ACTIONS,
    Role.SYSTEM: SYSTEM_ACTIONS,
}

PLACE_ACTIONS: Final = frozenset({Action.GET_TENANT, Action.GET_DATABASE})
"""Actions that every principal has at its own place, whatever its others are: the Python client's constructor asks for
the tenant and the database before anything else.
"""
