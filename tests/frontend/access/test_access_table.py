"""The access table and the routes: each has what the other has, and the pages show it."""

from __future__ import annotations

from itertools import pairwise

from frontend.access.access_table import TABLE, About
from frontend.app import all_routes
from frontend.routes.openapi.document import document
from shared.tenancy.actions import ACTIONS_OF, PLACE_ACTIONS, Action
from tests import access_page
from tests.frontend.fakes import new_collection, new_context


def test_every_route_has_a_row_and_every_row_has_a_route() -> None:
    served = {(route.method, route.path) for route in all_routes(new_context(new_collection()))}
    assert {(method, path) for method, path, _ in TABLE} == served


def test_what_a_row_is_about_is_in_its_path() -> None:
    needed = {
        About.TENANT: ["tenant"],
        About.DATABASE: ["tenant", "database"],
        About.NAMED_COLLECTION: ["tenant", "database", "name"],
        About.CRN: ["crn"],
    }
    for method, path, access in TABLE:
        params = needed.get(access.about, [])
        if access.about is About.COLLECTION:
            params = ["tenant", "database", access.id_param]
        assert all(f"{{{param}}}" in path for param in params), (method, path)


def test_a_row_that_needs_a_credential_names_actions() -> None:
    for method, path, access in TABLE:
        needs_none = access.about in (About.NOTHING, About.SELF)
        assert bool(access.actions or access.any_of) != needs_none, (method, path)


def test_every_action_is_one_of_a_route() -> None:
    of_rows = {action for _, _, access in TABLE for action in access.actions | access.any_of}
    assert of_rows == set(Action)


def test_each_role_has_all_that_the_one_before_it_has() -> None:
    assert all(less < more for less, more in pairwise(ACTIONS_OF.values()))
    assert all(actions >= PLACE_ACTIONS for actions in ACTIONS_OF.values())


def test_the_page_of_the_api_shows_the_table() -> None:
    assert access_page.written() == access_page.table(), "run: python -m tests.access_page"


def test_the_openapi_document_says_what_each_operation_needs() -> None:
    described = document()
    for method, path, access in TABLE:
        operation = described["paths"].get(path, {}).get(method.lower())
        if operation is None:
            assert access.about is About.NOTHING
            continue
        assert operation["x-polychrome-actions"] == sorted(access.actions)
        assert operation["x-polychrome-any-of-actions"] == sorted(access.any_of)
        assert bool(operation["security"]) == (access.about is not About.NOTHING)
        assert ("401" in operation["responses"]) == (access.about is not About.NOTHING)
