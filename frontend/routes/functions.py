"""Functions attached to collections."""

from __future__ import annotations

import uuid
from typing import TYPE_CHECKING, Any, Final

import msgspec

from frontend.collections.requests import function_output
from frontend.collections.row_cache import check_database_name, missing
from frontend.http.request import Request
from frontend.http.responses import HttpResponse, json_response
from frontend.http.router import Route
from frontend.parse.body import read_json
from frontend.parse.names import is_multi_region
from frontend.parse.shapes import shaped
from frontend.routes.collections import COLLECTIONS
from shared.catalog.functions import KNOWN
from shared.errors import AlreadyExists, Attached, Gone, InvalidArgument, NotFound, StaleGeneration

if TYPE_CHECKING:
    from shared.catalog import Collection, Database

COLLECTION: Final = COLLECTIONS + "/{collection_id}"
TRIES: Final = 4
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


async def attach(request: Request) -> HttpResponse:
    """Attaching the same again changes nothing."""
    body = shaped(await read_json(request), Attach)
    db, given = await _place(request)
    if body.function_id not in KNOWN:
        raise NotFound(f"function not found: {body.function_id}")
    if body.params:
        raise InvalidArgument("params must be empty - no functions currently accept parameters")
    for _ in range(TRIES):
        output = await request.context.functions.output_of(db, given)
        if output is not None:
            _check_same(output, body)
            return json_response({"attached_function": _shown(output), "created": False})
        _check_input(given)
        try:
            new = function_output(body.output_collection, body.name, body.function_id, given.id)
            output = await request.context.functions.attach(db, given, new)
        except Attached:
            continue  # somebody was faster: it may be the same
        except AlreadyExists:
            raise AlreadyExists(f"Output collection [{body.output_collection}] already exists") from None
        except Gone:
            raise missing(given.id) from None
        return json_response({"attached_function": _shown(output), "created": True})
    raise StaleGeneration("The collection is being changed by others; try again")


async def get(request: Request) -> HttpResponse:
    db, given = await _place(request)
    output = await _attached(request, db, given, "Attached function not found")
    return json_response({"attached_function": await _shown_whole(request, db, output, given)})


async def detach(request: Request) -> HttpResponse:
    body = shaped(await read_json(request), Detach)
    db, given = await _place(request)
    output = await _attached(request, db, given, f"Attached function [{request.path_params['name']}] does not exist")
    await request.context.functions.detach(db, output, given, body.delete_output)
    request.context.rows.forget(output.id)
    return json_response({"success": True})


async def add_input(request: Request) -> HttpResponse:
    """Inputs of one output are counted together."""
    body = shaped(await read_json(request), AddInput)
    db, given = await _place(request)
    output = await _attached(request, db, given, f"Attached function [{request.path_params['name']}] does not exist")
    more = await request.context.catalog.get_collection_by_id(db, str(body.input_collection_id))
    if more is None:
        raise missing(str(body.input_collection_id))
    _check_input(more)
    try:
        output = await request.context.functions.add_input(db, output, more)
    except Attached:
        other = await request.context.functions.output_of(db, more)
        raise _taken(other) if other else StaleGeneration("The function was just detached; try again") from None
    except Gone:
        raise NotFound(f"Attached function [{request.path_params['name']}] does not exist") from None
    request.context.rows.forget(output.id)
    return json_response({"attached_function": await _shown_whole(request, db, output, more)})


async def _place(request: Request) -> tuple[Database, Collection]:
    """The checks before the function itself, and the collection as it is now."""
    path_params = request.path_params
    check_database_name(path_params["database"])
    if is_multi_region(path_params["database"]):
        raise InvalidArgument("multi-region databases do not support attached functions")
    collection = await request.context.rows.read(
        path_params["tenant"], path_params["database"], path_params["collection_id"]
    )
    database = await request.context.catalog.get_database(path_params["tenant"], path_params["database"])
    if database is None:
        raise missing(collection.id)
    return database, collection


async def _attached(request: Request, db: Database, given: Collection, otherwise: str) -> Collection:
    output = await request.context.functions.output_of(db, given)
    if output is None or output.function is None or output.function.name != request.path_params["name"]:
        raise NotFound(otherwise)
    return output


def _check_input(given: Collection) -> None:
    if given.function is not None and given.function.inputs:
        raise InvalidArgument("cannot attach function to an output collection")


def _check_same(output: Collection, body: Attach) -> None:
    function = output.function
    same = function and (function.name, function.function, output.name)
    if same != (body.name, body.function_id, body.output_collection):
        raise _taken(output)


def _taken(output: Collection) -> AlreadyExists:
    """Clients look for either of two spellings."""
    function = output.function
    what = function and f"name={function.name}, function={function.function}, output_collection={output.name}"
    has = "collection already has an attached function"
    return AlreadyExists(f"{has}: {what} ({has} with the same execution mode: {what})")


def _shown(output: Collection) -> dict[str, Any]:
    function = output.function
    assert function is not None
    return {"id": function.id, "name": function.name, "function_name": function.function}


async def _shown_whole(request: Request, db: Database, output: Collection, given: Collection) -> dict[str, Any]:
    function = output.function
    return _shown(output) | {
        "input_collection_id": given.id,
        "output_collection": output.name,
        "output_collection_id": output.id,
        "params": function.params if function else {},
        "tenant_id": db.tenant,
        "database_id": db.id,
        "completion_offset": await request.context.functions.progress(output, given) - 1,
        "min_records_for_invocation": MIN_RECORDS,
    }


def routes() -> list[Route]:
    return [
        Route("POST", COLLECTION + "/functions/attach", attach),
        Route("GET", COLLECTION + "/functions/{name}", get),
        Route("POST", COLLECTION + "/attached_functions/{name}/detach", detach),
        Route("POST", COLLECTION + "/attached_functions/{name}/add_input", add_input),
    ]
