"""Which handler a path finds."""

from __future__ import annotations

import pytest

from frontend.access.access_table import PUBLIC, AccessTable
from frontend.http.request import UNKNOWN, Request
from frontend.http.responses import HttpResponse
from frontend.http.router import Route, Router
from shared.errors import InvalidArgument


async def handler(_request: Request) -> HttpResponse:
    return HttpResponse()


def found(method: str, path: str) -> tuple[str, dict[str, str]]:
    patterns = [
        ("GET", "/a"),
        ("GET", "/a/{name}"),
        ("PUT", "/a/{name}"),
        ("POST", "/a/{id}/b"),
        ("GET", "/a/by/{id}"),
        ("GET", "/old/{rest}"),
    ]
    table = AccessTable(dict.fromkeys(patterns, PUBLIC))
    match = Router([Route(*pattern, handler) for pattern in patterns], table).find(method, path)
    return match.pattern, match.path_params


@pytest.mark.parametrize(
    ("method", "path", "expected"),
    [
        ("GET", "/a", ("/a", {})),
        ("HEAD", "/a", ("/a", {})),
        ("GET", "/a/x", ("/a/{name}", {"name": "x"})),
        ("PUT", "/a/x", ("/a/{name}", {"name": "x"})),
        ("POST", "/a/x/b", ("/a/{id}/b", {"id": "x"})),
        ("GET", "/a/by/b", ("/a/by/{id}", {"id": "b"})),
        ("POST", "/a/by/b", ("/a/{id}/b", {"id": "by"})),
        ("GET", "/a/%2F%25", ("/a/{name}", {"name": "/%"})),
        ("GET", "/old/any/thing", ("/old/{rest}", {})),
    ],
)
def test_a_path_finds_the_pattern_it_fits_that_has_its_method(
    method: str, path: str, expected: tuple[str, dict[str, str]]
) -> None:
    assert found(method, path) == expected


@pytest.mark.parametrize("path", ["", "/", "/a/", "/a/x/", "/a//b", "/A", "/old", "/old/", "/a/x/b/c"])
def test_a_parameter_is_one_segment_and_never_empty(path: str) -> None:
    for method in ("GET", "POST"):
        assert found(method, path) == (UNKNOWN, {})


def test_a_parameter_that_is_no_text_is_refused_and_an_unknown_path_is_not() -> None:
    with pytest.raises(InvalidArgument, match="Invalid UTF-8 in `name`"):
        found("GET", "/a/%FF")
    assert found("GET", "/b/%FF") == (UNKNOWN, {})


def test_one_path_has_one_pattern() -> None:
    with pytest.raises(ValueError, match="the same path"):
        Router(
            [Route("GET", "/a/{name}", handler), Route("PUT", "/a/{id}", handler)],
            AccessTable({("GET", "/a/{name}"): PUBLIC, ("PUT", "/a/{id}"): PUBLIC}),
        )


def test_a_route_without_a_row_of_the_access_table_is_refused() -> None:
    with pytest.raises(ValueError, match="GET /b has no row"):
        Router([Route("GET", "/a", handler), Route("GET", "/b", handler)], AccessTable({("GET", "/a"): PUBLIC}))
