from __future__ import annotations

from typing import Any

from frontend.app import all_routes
from frontend.routes.docs import page
from frontend.routes.openapi.document import document
from frontend.routes.openapi.operations import operations
from tests.frontend.fakes import new_collection, new_context

UNDOCUMENTED = ("/docs", "/docs/", "/openapi.json", "/api/v1/{rest}")


def test_every_route_is_documented_and_nothing_else() -> None:
    context = new_context(new_collection())
    served = {(route.method.lower(), route.path) for route in all_routes(context) if route.path not in UNDOCUMENTED}
    assert {(operation.method, operation.path) for operation in operations()} == served


def test_operation_ids_are_unique() -> None:
    ids = [operation.id for operation in operations()]
    assert len(ids) == len(set(ids))


def test_every_reference_leads_somewhere() -> None:
    known = {f"#/components/schemas/{name}" for name in document()["components"]["schemas"]}
    assert set(_references(document())) <= known


def _references(node: Any) -> list[str]:
    if isinstance(node, dict):
        own = [node["$ref"]] if "$ref" in node else []
        return own + [found for value in node.values() for found in _references(value)]
    return [found for value in node for found in _references(value)] if isinstance(node, list) else []


def test_the_page_loads_nothing_from_elsewhere() -> None:
    text = page().decode()
    assert "<script" not in text
    assert "http://" not in text
    assert "https://" not in text
    assert "/conditional/commit" in text
