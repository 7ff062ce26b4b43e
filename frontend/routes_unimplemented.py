"""Routes whose features this build does not have. They check what the contract checks first, then say so."""

from __future__ import annotations

import uuid
from collections.abc import Awaitable, Callable
from typing import Any, Final

import msgspec

from frontend.answers import Answer
from frontend.body import read_json, shaped
from frontend.names import is_multi_region
from frontend.request import Request
from frontend.router import Route
from frontend.routes_collections import COLLECTIONS
from frontend.rows import check_database_name
from shared.errors import InvalidArgument, Unimplemented

COLLECTION: Final = COLLECTIONS + "/{collection_id}"
NO_FUNCTIONS: Final = "Attached functions are unsupported"


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


async def _check_place(request: Request, multi_region: str | None = None) -> None:
    """The checks before the feature itself: database name, collection id, the collection's existence."""
    place = request.place
    check_database_name(place["database"])
    if multi_region is not None and is_multi_region(place["database"]):
        raise InvalidArgument(f"multi-region databases do not support {multi_region}")
    await request.shell.rows.resolve(place["tenant"], place["database"], place["collection_id"])


def _function_route(shape: type[msgspec.Struct] | None) -> Callable[[Request], Awaitable[Answer]]:
    async def handler(request: Request) -> Answer:
        if shape is not None:
            shaped(await read_json(request), shape)
        await _check_place(request, "attached functions")
        raise Unimplemented(NO_FUNCTIONS)

    return handler


def routes() -> list[Route]:
    return [
        Route("POST", COLLECTION + "/functions/attach", _function_route(Attach)),
        Route("GET", COLLECTION + "/functions/{name}", _function_route(None)),
        Route("POST", COLLECTION + "/attached_functions/{name}/detach", _function_route(Detach)),
        Route("POST", COLLECTION + "/attached_functions/{name}/add_input", _function_route(AddInput)),
    ]
