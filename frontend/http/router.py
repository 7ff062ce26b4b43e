"""Finds the handler of a request by its method and path.

Paths are compared segment by segment. Patterns of the same length whose fixed segments stand at the same places share a
table, so that finding a path takes one lookup in each of the few tables for its length, however many routes there are.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass, field
from operator import itemgetter
from typing import Final, NamedTuple
from urllib.parse import unquote

from frontend.access.access_table import PUBLIC, Access, AccessTable
from frontend.http.request import UNKNOWN, Request
from frontend.http.responses import HttpResponse
from shared.errors import InvalidArgument

Handler = Callable[[Request], Awaitable[HttpResponse]]

METHOD_ORDER: Final = ("GET", "HEAD", "PUT", "PATCH", "POST", "DELETE", "OPTIONS")
REST: Final = "/{rest}"
"""Ends a pattern that stands for every path below."""


class Route(NamedTuple):
    """A handler for a method and a path. `path` is a pattern: `{name}` stands for any segment. A handler of GET answers
    HEAD as well.
    """

    method: str
    path: str
    handler: Handler


class Match(NamedTuple):
    """The match of a request's path: the handler, the route's pattern (one of a bounded set), the decoded values of the
    pattern's parameters, and the route's row of the access table.
    """

    handler: Handler
    pattern: str
    path_params: dict[str, str]
    access: Access


@dataclass(slots=True)
class _Resource:
    """The handlers of one pattern, by method."""

    pattern: str
    names: tuple[tuple[int, str], ...]
    """Index and name of each segment that is a parameter."""

    handlers: dict[str, tuple[Handler, Access]] = field(default_factory=dict)


@dataclass(slots=True)
class _Table:
    """Resources by the fixed segments of their patterns, which `key_of` takes from a path's segments."""

    key_of: Callable[[list[str]], object]
    resources: dict[object, _Resource] = field(default_factory=dict)


class Router:
    """The routes, ready to be searched. Where several patterns match, the pattern that was given first wins. Raises
    ValueError for a route that has no row in the access table.
    """

    def __init__(self, routes: Iterable[Route], table: AccessTable) -> None:
        self._tables: dict[int, dict[tuple[int, ...], _Table]] = {}
        self._below: dict[str, _Resource] = {}
        for route in routes:
            handlers = self._resource(route.path).handlers
            served = (route.handler, table.row(route.method, route.path))
            handlers[route.method] = served
            if route.method == "GET":
                handlers["HEAD"] = served

    def _resource(self, pattern: str) -> _Resource:
        if pattern.endswith(REST):
            prefix = pattern.removesuffix(REST) + "/"
            return self._below.setdefault(prefix, _Resource(pattern, ()))
        segments = pattern.split("/")
        names = tuple((index, text[1:-1]) for index, text in enumerate(segments) if text.startswith("{"))
        fixed = tuple(set(range(len(segments))) - {index for index, _ in names})
        table = self._tables.setdefault(len(segments), {}).setdefault(fixed, _Table(itemgetter(*fixed)))
        resource = table.resources.setdefault(table.key_of(segments), _Resource(pattern, names))
        if resource.pattern != pattern:
            raise ValueError(f"{pattern} and {resource.pattern} are the same path")
        return resource

    def find(self, method: str, path: str) -> Match:
        """The handler for a path as it was sent; of an unknown path or method a handler that answers 404 or 405.
        Raises InvalidArgument for a parameter that is not UTF-8: left encoded, it would name the resource that its own
        spelling, encoded once more, names too.
        """
        segments = path.split("/")
        plain = path.isascii() and "%" not in path
        if not plain:
            segments = [unquote(segment, errors="surrogateescape") for segment in segments]
        found = []
        for table in self._tables.get(len(segments), {}).values():
            resource = table.resources.get(table.key_of(segments))
            if resource is None:
                continue
            path_params = {name: segments[at] for at, name in resource.names}
            if "" in path_params.values():  # a parameter is never empty
                continue
            served = resource.handlers.get(method)
            if served is not None:
                handler, access = served
                return Match(handler, resource.pattern, path_params if plain else _checked(path_params), access)
            found.append(resource)
        found += [resource for prefix, resource in self._below.items() if path.startswith(prefix) and path != prefix]
        for resource in found:
            if method in resource.handlers:
                handler, access = resource.handlers[method]
                return Match(handler, resource.pattern, {}, access)
        return Match(_refuse({name for resource in found for name in resource.handlers}), UNKNOWN, {}, PUBLIC)


def _checked(path_params: dict[str, str]) -> dict[str, str]:
    """The parameters. Raises InvalidArgument for a parameter that was not UTF-8."""
    for name, value in path_params.items():
        try:
            value.encode()
        except UnicodeEncodeError:
            raise InvalidArgument(f"Invalid URL: Invalid UTF-8 in `{name}`") from None
    return path_params


def _refuse(allowed: set[str]) -> Handler:
    """A handler that answers 404, or 405 with the methods that exist; the body is empty."""

    async def refuse(_request: Request) -> HttpResponse:
        if not allowed:
            return HttpResponse(status=404, content_type=None)
        response = HttpResponse(status=405, content_type=None)
        response.add("Allow", ",".join(method for method in METHOD_ORDER if method in allowed))
        return response

    return refuse
