"""Tenants, databases, collections and the routes that say no, beyond what the recorded cases show."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import pytest

from shared.catalog import Pointer
from tests.frontend.server import COLLECTIONS, DATABASES, Running, running

NO_COLLECTION = f"{COLLECTIONS}/6f9619ff-8b86-4d01-b42d-00cf4fc964ff"


@pytest.fixture
async def server() -> AsyncIterator[Running]:
    async with running() as server:
        yield server


async def create(server: Running, name: str = "col", **body: Any) -> dict[str, Any]:
    answer = await server.client.post(COLLECTIONS, json={"name": name, **body})
    assert answer.status_code == 200, answer.text
    return dict(answer.json())


async def refused(server: Running, method: str, path: str, body: Any = None) -> tuple[int, str, str]:
    answer = await server.client.request(method, path, json=body)
    return answer.status_code, answer.json()["error"], answer.json()["message"]


async def test_a_resource_name_is_set_once(server: Running) -> None:
    tenant = "/api/v2/tenants/default_tenant"
    for _ in range(2):
        assert (await server.client.patch(tenant, json={"resource_name": "res"})).json() == {}
    assert await refused(server, "PATCH", tenant, {"resource_name": "other"}) == (
        409,
        "ChromaError",
        "Failed to set resource name",
    )
    assert (await server.client.get(tenant)).json() == {"name": "default_tenant", "resource_name": "res"}
    assert (await refused(server, "PATCH", "/api/v2/tenants/nobody", {"resource_name": "x"}))[0] == 404


async def test_a_collection_is_found_by_its_resource_name(server: Running) -> None:
    await server.client.patch("/api/v2/tenants/default_tenant", json={"resource_name": "res"})
    collection = await create(server)
    for crn in ("res:default_database:col", "res%3Adefault_database%3Acol"):
        assert (await server.client.get(f"/api/v2/collections/{crn}")).json() == collection
    for crn in ("other:default_database:col", "res:nothing:col", "res:default_database:nothing"):
        assert (await refused(server, "GET", f"/api/v2/collections/{crn}"))[:2] == (404, "NotFoundError")
    for crn in ("col", "a:b", "a::c", "a:b:c:d"):
        message = (await refused(server, "GET", f"/api/v2/collections/{crn}"))[2]
        assert message.startswith("Validation error: crn: CRN must be in the format ")


async def test_a_database_needs_a_tenant(server: Running) -> None:
    path = "/api/v2/tenants/nobody/databases"
    assert await refused(server, "POST", path, {"name": "abc"}) == (404, "NotFoundError", "Tenant [nobody] not found")
    assert (await server.client.get(path)).json() == []


async def test_lists_take_a_limit_and_an_offset(server: Running) -> None:
    for name in ("one", "two", "three"):
        await create(server, name)
    for query, names in {"limit=0": [], "limit=1&offset=1": ["two"], "offset=9": [], "limit=4294967295": 3}.items():
        found = [row["name"] for row in (await server.client.get(f"{COLLECTIONS}?{query}")).json()]
        assert (found if isinstance(names, list) else len(found)) == names
    for query in ("limit=4294967296", "limit=%2B", "limit=1&limit=2", "offset=1e3", "limit=٣", "offset=" + "9" * 5000):
        status, _, message = await refused(server, "GET", f"{COLLECTIONS}?{query}")
        assert status == 400
        assert message.startswith("Failed to deserialize query string: ")


@pytest.mark.parametrize(
    ("spelling", "status"),
    [
        ("{}", 200),
        ("{upper}", 200),
        ("{plain}", 200),
        ("%7B{}%7D", 200),
        ("urn:uuid:{}", 200),
        ("{}-", 400),
        ("%7B{plain}%7D", 400),
        ("{short}", 400),
    ],
)
async def test_an_id_may_be_spelled_in_every_usual_way(server: Running, spelling: str, status: int) -> None:
    given = (await create(server))["id"]
    spelled = spelling.format(given, upper=given.upper(), plain=given.replace("-", ""), short=given[:-1])
    assert (await server.client.get(f"{COLLECTIONS}/by-id/{spelled}")).status_code == status
    assert (await server.client.put(f"{COLLECTIONS}/{spelled}", json={})).status_code == status


async def test_renaming_to_a_taken_name_is_409_and_to_itself_is_nothing(server: Running) -> None:
    first = await create(server, "first")
    await create(server, "second")
    path = f"{COLLECTIONS}/{first['id']}"
    assert await refused(server, "PUT", path, {"new_name": "second"}) == (
        409,
        "ChromaError",
        "Collection [second] already exists",
    )
    assert (await server.client.put(path, json={"new_name": "first"})).json() == {}


async def test_updates_that_meet_apply_both(server: Running) -> None:
    path = f"{COLLECTIONS}/{(await create(server))['id']}"
    bodies = [{"new_metadata": {"a": 1}}, {"new_configuration": {"hnsw": {"ef_search": 7}}}, {"new_name": "other"}]
    answers = await asyncio.gather(*(server.client.put(path, json=body) for body in bodies))
    assert [answer.status_code for answer in answers] == [200, 200, 200]
    found = (await server.client.get(f"{COLLECTIONS}/other")).json()
    assert (found["metadata"], found["configuration_json"]["hnsw"]["ef_search"]) == ({"a": 1}, 7)


async def test_an_update_elsewhere_is_404(server: Running) -> None:
    collection = await create(server)
    await server.client.post(DATABASES, json={"name": "other"})
    for database in ("other", "nothing"):
        path = f"{DATABASES}/{database}/collections/{collection['id']}"
        assert (await refused(server, "PUT", path, {}))[0] == 404


async def test_several_failing_fields_are_all_named(server: Running) -> None:
    body = {"name": "x", "metadata": {"": 1}, "schema": {"defaults": {}, "keys": {"#x": {}}}}
    _, _, message = await refused(server, "POST", COLLECTIONS, body)
    prefix, _, problems = message.partition(": ")
    assert prefix == "Validation error"
    assert sorted(line.split(": ")[0] for line in problems.splitlines()) == ["metadata", "name", "schema"]


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ({"configuration": {"hnsw": {}, "spann": {}}}, "Multiple vector index configurations provided"),
        ({"metadata": {"hnsw:x": 1}}, "Failed to parse hnsw parameters from segment metadata"),
    ],
)
async def test_a_new_collections_configuration_is_read_before_its_name_is_judged(
    server: Running, body: dict[str, Any], message: str
) -> None:
    assert (await refused(server, "POST", COLLECTIONS, {"name": "", **body}))[2] == message


@pytest.mark.parametrize(
    "body", [{"new_name": ""}, {"new_metadata": {}}, {"new_configuration": {"hnsw": {}, "spann": {}}}]
)
async def test_an_update_of_nothing_is_404_before_its_values_are_judged(server: Running, body: dict[str, Any]) -> None:
    assert (await refused(server, "PUT", NO_COLLECTION, body))[0] == 404
    assert (await refused(server, "PUT", f"{COLLECTIONS}/{(await create(server))['id']}", body))[0] == 400


async def test_an_updates_shape_is_judged_before_its_path(server: Running) -> None:
    assert (await refused(server, "PUT", f"{COLLECTIONS}/no-uuid", {"new_name": 1}))[0] == 422


@pytest.mark.parametrize(
    ("query", "reason"),
    [
        ("limit=1&limit=2", "duplicate field `limit`"),
        ("offset=x&limit=", "offset: invalid digit found in string"),
        ("limit=&offset=x", "limit: cannot parse integer from empty string"),
        ("limit=1&offset=4294967296", "offset: number too large to fit in target type"),
    ],
)
async def test_the_first_bad_parameter_of_a_page_is_told(server: Running, query: str, reason: str) -> None:
    for path in (COLLECTIONS, DATABASES):
        message = (await refused(server, "GET", f"{path}?{query}"))[2]
        assert message == f"Failed to deserialize query string: {reason}"


async def test_collection_metadata_takes_lists_sparse_vectors_and_large_integers(server: Running) -> None:
    given = {"l": ["a"], "m": [1, 2.5], "big": 2**63, "s": {"indices": [1, 3], "values": [1, 0.5]}}
    shown = {
        "l": ["a"],
        "m": [1.0, 2.5],
        "big": float(2**63),
        "s": {"#type": "sparse_vector", "indices": [1, 3], "values": [1.0, 0.5], "tokens": None},
    }
    assert (await create(server, metadata=given))["metadata"] == shown


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ({"name": "abc", "get_or_create": None}, 422),
        ({"name": None}, 422),
        ({"name": "abc", "metadata": {"a": [1, "x"]}}, 422),
        ({"name": "abc", "metadata": {"a": [[1]]}}, 422),
        ({"name": "abc", "metadata": []}, 422),
        ({"name": "abc", "metadata": {"s": {"indices": [3, 1], "values": [1, 2]}}}, 400),
    ],
)
async def test_create_bodies_that_are_refused(server: Running, body: Any, status: int) -> None:
    assert (await refused(server, "POST", COLLECTIONS, body))[0] == status


async def test_graph_parameters_and_shards_are_fixed_at_creation() -> None:
    async with running(shards_default=3) as server:
        created = await create(server, configuration={"hnsw": {"max_neighbors": 8}})
        row = server.catalog.collections.rows[created["id"]]
        assert row.shards == 3
        assert row.fixed == {"space": "l2", "ef_construction": 100, "max_neighbors": 8, "shards": 3}


async def test_growth_position_and_version_are_shown(server: Running) -> None:
    created = await create(server)
    row = server.catalog.collections.rows[created["id"]]
    server.catalog.collections.rows[row.id] = replace(
        row,
        head=8,
        dimension=2,
        keys=frozenset({("k", "int")}),
        pointers=(Pointer(3, "h", 6),),
        written=(6,),
        appended=7,
        trimmed=5,
    )
    found = (await server.client.get(f"{COLLECTIONS}/col")).json()
    assert (found["log_position"], found["version"], found["dimension"]) == (5, 3, 2)
    assert found["schema"]["keys"]["k"] == {"int": {"int_inverted_index": {"enabled": True, "config": {}}}}
    status = (await server.client.get(f"{COLLECTIONS}/{row.id}/indexing_status")).json()
    assert status == {
        "op_indexing_progress": 5 / 7,
        "num_unindexed_ops": 2,
        "num_indexed_ops": 5,
        "total_ops": 7,
    }


async def test_an_empty_collection_is_wholly_indexed(server: Running) -> None:
    created = await create(server)
    status = (await server.client.get(f"{COLLECTIONS}/{created['id']}/indexing_status")).json()
    assert (status["op_indexing_progress"], status["total_ops"]) == (1.0, 0)
    assert (await refused(server, "GET", f"{NO_COLLECTION}/indexing_status"))[0] == 404


async def test_reset_is_off_unless_configured(server: Running) -> None:
    assert await refused(server, "POST", "/api/v2/reset") == (403, "ChromaError", "Reset is disabled by config")


async def test_reset_forgets_cached_rows() -> None:
    async with running(allow_reset=True) as server:
        created = await create(server)
        path = f"{COLLECTIONS}/{created['id']}/indexing_status"
        assert (await server.client.get(path)).status_code == 200
        assert (await server.client.post("/api/v2/reset", content=b"{nonsense")).json() is True
        assert (await server.client.get(path)).status_code == 404


OF_A_COLLECTION: list[tuple[str, str, Any]] = [
    ("POST", "fork", {"new_name": "x y"}),
    ("GET", "fork_count", None),
    ("POST", "functions/attach", {"name": "f", "function_id": "record_counter", "output_collection": "out"}),
    ("GET", "functions/f", None),
    ("POST", "attached_functions/f/detach", {}),
    ("POST", "attached_functions/f/add_input", {"input_collection_id": "6f9619ff-8b86-4d01-b42d-00cf4fc964ff"}),
]


@pytest.mark.parametrize(("method", "route", "body"), OF_A_COLLECTION)
async def test_routes_of_a_collection_make_the_usual_checks(
    server: Running, method: str, route: str, body: Any
) -> None:
    assert (await refused(server, method, f"{NO_COLLECTION}/{route}", body))[0] == 404
    assert (await refused(server, method, f"{COLLECTIONS}/nonsense/{route}", body))[0] == 400
    short = f"{DATABASES}/ab/collections/nonsense/{route}"
    assert (await refused(server, method, short, body))[2] == "database name must be at least 3 characters"
    if method == "POST":
        assert (await refused(server, method, f"{COLLECTIONS}/nonsense/{route}", []))[0] == 422


@pytest.mark.parametrize(
    ("method", "route", "body", "what"),
    [
        (method, route, body, "forking" if route == "fork" else "attached functions")
        for method, route, body in OF_A_COLLECTION
        if route != "fork_count"
    ],
)
async def test_databases_of_several_regions_have_neither_forks_nor_functions(
    server: Running, method: str, route: str, body: Any, what: str
) -> None:
    created = await create(server)
    regions = f"{DATABASES}/some+where/collections/{created['id']}/{route}"
    message = f"multi-region databases do not support {what}"
    assert (await refused(server, method, regions, body))[::2] == (400, message)
