"""Which handler a request goes to.

Paths are compared segment by segment. Patterns of the same length whose fixed segments stand at the same places share a
table, so that looking a path up is one look into each of the few tables for its length, however many routes there are.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass, field
from operator import itemgetter
from typing import Final, NamedTuple
from urllib.parse import unquote

from frontend.http.request import Request
from frontend.http.responses import HttpResponse
from shared.errors import InvalidArgument

Handler = Callable[[Request], Awaitable[HttpResponse]]

METHOD_ORDER: Final = ("GET", "HEAD", "PUT", "PATCH", "POST", "DELETE", "OPTIONS")
REST: Final = "/{rest}"
"""Ends a pattern that stands for everything below."""

UNKNOWN: Final = "unknown"


class Route(NamedTuple):
    """`path` is a pattern: `{name}` stands for any segment. Who answers GET answers HEAD."""

    method: str
    path: str
    handler: Handler


class Match(NamedTuple):
    """`pattern` is the route's, one of a bounded set."""

    handler: Handler
    pattern: str
    path_params: dict[str, str]


@dataclass(slots=True)
class _Resource:
    pattern: str
    names: tuple[tuple[int, str], ...]
    """Where the parameters stand."""

    handlers: dict[str, Handler] = field(default_factory=dict)


@dataclass(slots=True)
class _Table:
    key_of: Callable[[list[str]], object]
    resources: dict[object, _Resource] = field(default_factory=dict)


class Router:
    """The tables. Where several patterns match, the one that was given first wins."""

    def __init__(self, routes: Iterable[Route]) -> None:
        self._tables: dict[int, dict[tuple[int, ...], _Table]] = {}
        self._below: dict[str, _Resource] = {}
        for route in routes:
            handlers = self._resource(route.path).handlers
            handlers[route.method] = route.handler
            if route.method == "GET":
                handlers["HEAD"] = route.handler

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
        """`path` as it was sent. Raises InvalidArgument for a parameter that is no UTF-8: it would stay encoded, and
        name what its own spelling, encoded once more, names too.
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
            handler = resource.handlers.get(method)
            if handler is not None:
                return Match(handler, resource.pattern, path_params if plain else _texts(path_params))
            found.append(resource)
        found += [resource for prefix, resource in self._below.items() if path.startswith(prefix) and path != prefix]
        for resource in found:
            if method in resource.handlers:
                return Match(resource.handlers[method], resource.pattern, {})
        return Match(_refuse({name for resource in found for name in resource.handlers}), UNKNOWN, {})


def _texts(path_params: dict[str, str]) -> dict[str, str]:
    for name, value in path_params.items():
        try:
            value.encode()
        except UnicodeEncodeError:
            raise InvalidArgument(f"Invalid URL: Invalid UTF-8 in `{name}`") from None
    return path_params


def _refuse(allowed: set[str]) -> Handler:
    """404 and 405: an empty body, and for 405 the methods that exist."""

    async def refuse(_request: Request) -> HttpResponse:
        if not allowed:
            return HttpResponse(status=404, content_type=None)
        answer = HttpResponse(status=405, content_type=None)
        answer.add("Allow", ",".join(method for method in METHOD_ORDER if method in allowed))
        return answer

    return refuse
