"""Routes of functions: attached to a collection, their input, they keep another collection, their output, in step with
it.
"""

from __future__ import annotations

import math
import uuid
from typing import TYPE_CHECKING, Any, Final

import msgspec

from frontend.access.authorization import stand_in_for_id
from frontend.collections.requests import function_output
from frontend.collections.row_cache import check_database_name, missing
from frontend.http.responses import HttpResponse, json_response
from frontend.http.router import Route
from frontend.parse.body import read_json
from frontend.parse.names import is_multi_region
from frontend.parse.shapes import shaped
from frontend.parse.text_limits import utf8_bytes
from frontend.request_limits import check_limit
from frontend.routes.paths import COLLECTION
from frontend.routes.visible import sees
from shared.catalog.functions import KNOWN
from shared.errors import AlreadyExists, Attached, Gone, InvalidArgument, NotFound, StaleGeneration, Unavailable
from shared.tenancy.actions import Action
from shared.tenancy.quotas import Quota

if TYPE_CHECKING:
    from frontend.collections.row_cache import RowCache
    from frontend.http.request import Request
    from shared.catalog import Collection, Database
    from shared.catalog.collections import Collections
    from shared.catalog.databases import Databases
    from shared.catalog.functions import Functions

ATTACH_TRIES: Final = 4
"""Times that an attachment is tried against others that attach a function to the same collection."""

MIN_RECORDS: Final = 1
"""A function follows every compaction."""


class Attach(msgspec.Struct, frozen=True):
    """Body of POST .../functions/attach."""

    name: str
    function_id: str
    output_collection: str
    params: dict[str, Any] | None = None


class Detach(msgspec.Struct, frozen=True):
    """Body of POST .../attached_functions/{name}/detach."""

    delete_output: bool = False


class AddInput(msgspec.Struct, frozen=True):
    """Body of POST .../attached_functions/{name}/add_input."""

    input_collection_id: uuid.UUID


class FunctionRoutes:
    """Handlers of the function routes."""

    def __init__(self, rows: RowCache, databases: Databases, collections: Collections, functions: Functions) -> None:
        self._rows = rows
        self._databases = databases
        self._collections = collections
        self._functions = functions

    def routes(self) -> list[Route]:
        """The routes of this group."""
        attached = COLLECTION + "/attached_functions/{name}"
        return [
            Route("POST", COLLECTION + "/functions/attach", self.attach),
            Route("GET", COLLECTION + "/functions/{name}", self.get),
            Route("POST", attached + "/detach", self.detach),
            Route("POST", attached + "/add_input", self.add_input),
        ]

    async def attach(self, request: Request) -> HttpResponse:
        """Attaches a function; a function that is attached already with the same names is the answer, unchanged."""
        body = shaped(await read_json(request), Attach)
        request.subject = body.name
        check_limit("bytes of a name", utf8_bytes(body.name), request.limits.name_bytes_max, "name")
        db, source = await self._resolve(request)
        if body.function_id not in KNOWN:
            raise NotFound(f"function not found: {body.function_id}")
        if body.params:
            raise InvalidArgument("params must be empty - no functions currently accept parameters")
        for _ in range(ATTACH_TRIES):
            output = await self._functions.output_of(db, source)
            if output is not None:
                _check_same(output, body)
                return json_response({"attached_function": _shown_summary(output), "created": False})
            _check_input(source)
            await self._check_number(request, db)
            try:
                new = function_output(body.output_collection, body.name, body.function_id, source.id)
                output = await self._functions.attach(db, source, new)
            except Attached:
                continue  # another request was faster, and may have attached the same function
            except AlreadyExists:
                raise AlreadyExists(f"Output collection [{body.output_collection}] already exists") from None
            except Gone:
                await self._resolve(request)  # NotFound of a deleted one; Unavailable where Redis lost a part of it
                raise Unavailable(f"Collection [{source.id}] is being restored") from None
            return json_response({"attached_function": _shown_summary(output), "created": True})
        raise StaleGeneration("The collection is being changed by others; try again")

    async def _check_number(self, request: Request, db: Database) -> None:
        """Raises QuotaExceeded when the database has as many functions as its quota allows. Those that are attached at
        the same moment are not seen.
        """
        if request.quotas.most(Quota.FUNCTIONS) != math.inf:
            request.check_quota(Quota.FUNCTIONS, await self._functions.count(db) + 1)

    async def get(self, request: Request) -> HttpResponse:
        """The function that is attached under this name, and how far it is."""
        db, source = await self._resolve(request)
        output = await self._output(db, source, request, "Attached function not found")
        return json_response({"attached_function": await self._shown(db, output, source)})

    async def detach(self, request: Request) -> HttpResponse:
        """Detaches the function. Its output stays, as an ordinary collection, unless it shall be deleted too."""
        body = shaped(await read_json(request), Detach)
        db, source = await self._resolve(request)
        if body.delete_output:
            request.require(Action.DELETE_COLLECTION)
        output = await self._output(db, source, request, _missing_function(request))
        await self._functions.detach(db, output, source, body.delete_output)
        self._rows.forget(output.id)
        return json_response({"success": True})

    async def add_input(self, request: Request) -> HttpResponse:
        """Gives the function one more input. All inputs of one output are counted together."""
        body = shaped(await read_json(request), AddInput)
        db, source = await self._resolve(request)
        output = await self._output(db, source, request, _missing_function(request))
        input_id = str(body.input_collection_id)
        visible = request.principal.scope.has_collection(db.tenant, db.name, input_id)
        added = await self._collections.get_by_id(db, input_id if visible else stand_in_for_id())
        if added is None:
            raise missing(input_id)
        _check_input(added)
        try:
            output = await self._functions.add_input(db, output, added)
        except Attached:
            other = await self._functions.output_of(db, added)
            if other is None:
                raise StaleGeneration("The function was just detached; try again") from None
            raise _already_attached(other if sees(request.principal, other) else None) from None
        except Gone:
            raise NotFound(_missing_function(request)) from None
        self._rows.forget(output.id)
        return json_response({"attached_function": await self._shown(db, output, added)})

    async def _resolve(self, request: Request) -> tuple[Database, Collection]:
        """The database and the collection in the path, as they are now. Raises InvalidArgument, NotFound."""
        tenant, database_name = request.path_params["tenant"], request.path_params["database"]
        check_database_name(database_name)
        if is_multi_region(database_name):
            raise InvalidArgument("multi-region databases do not support attached functions")
        collection = await self._rows.read(tenant, database_name, request.path_params["collection_id"])
        database = await self._databases.get(tenant, database_name)
        if database is None:
            raise missing(collection.id)
        return database, collection

    async def _output(self, db: Database, source: Collection, request: Request, otherwise: str) -> Collection:
        """The output of the function in the path, which is attached to `source`. Raises NotFound with the message
        `otherwise`, also for an output that the principal does not see.
        """
        output = await self._functions.output_of(db, source)
        if output is None or output.function is None or output.function.name != request.path_params["name"]:
            raise NotFound(otherwise)
        if not sees(request.principal, output):
            raise NotFound(otherwise)
        return output

    async def _shown(self, db: Database, output: Collection, source: Collection) -> dict[str, Any]:
        """The function as clients see it."""
        function = output.function
        return _shown_summary(output) | {
            "input_collection_id": source.id,
            "output_collection": output.name,
            "output_collection_id": output.id,
            "params": function.params if function else {},
            "tenant_id": db.tenant,
            "database_id": db.id,
            "completion_offset": await self._functions.progress(output, source) - 1,
            "min_records_for_invocation": MIN_RECORDS,
        }


def _check_input(collection: Collection) -> None:
    if collection.function is not None and collection.function.inputs:
        raise InvalidArgument("cannot attach function to an output collection")


def _check_same(output: Collection, body: Attach) -> None:
    """Raises AlreadyExists when the function that is attached is not the function that the body wants."""
    function = output.function
    attached = function and (function.name, function.function, output.name)
    if attached != (body.name, body.function_id, body.output_collection):
        raise _already_attached(output)


def _already_attached(output: Collection | None) -> AlreadyExists:
    """The 409 of a collection that has a function; clients look for either of two spellings. `output` None: one that
    the principal does not see.
    """
    if output is None:
        return AlreadyExists("collection already has an attached function")
    function = output.function
    what = function and f"name={function.name}, function={function.function}, output_collection={output.name}"
    has = "collection already has an attached function"
    return AlreadyExists(f"{has}: {what} ({has} with the same execution mode: {what})")


def _missing_function(request: Request) -> str:
    return f"Attached function [{request.path_params['name']}] does not exist"


def _shown_summary(output: Collection) -> dict[str, Any]:
    function = output.function
    assert function is not None
    return {"id": function.id, "name": function.name, "function_name": function.function}
