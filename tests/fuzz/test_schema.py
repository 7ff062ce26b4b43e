"""Requests made up from our own /openapi.json, right and wrong ones: never a 5xx, never a changed record.

FUZZ_REQUESTS says how many (default 800, the long form sends 10,000).
"""

import contextlib
import itertools
import json
import os
import random
from dataclasses import dataclass
from typing import Any

import httpx
import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st
from hypothesis.errors import Unsatisfiable
from schemathesis import Case, GenerationMode
from schemathesis.core import NotSet
from schemathesis.core.result import Ok

from tests.fuzz import answers
from tests.fuzz.sentinel import Sentinel

REQUESTS = int(os.environ.get("FUZZ_REQUESTS", "800"))
LEFT_ALONE = {("POST", "/api/v2/reset"), ("DELETE", "/polychrome/v1/tenants/{tenant}")}
"""It deletes everything, as it should."""
MODES = (GenerationMode.POSITIVE, GenerationMode.NEGATIVE)


def operations(document: dict[str, Any]) -> list[Any]:
    schema = schemathesis.openapi.from_dict(document)
    found = [result.ok() for result in schema.get_all_operations() if isinstance(result, Ok)]
    return [operation for operation in found if (operation.method.upper(), operation.path) not in LEFT_ALONE]


def aim(case: Case[Any], sentinel: Sentinel, chance: random.Random) -> str:
    """The path: mostly of the target collection, so that the body matters, sometimes as made up."""
    values = {name: str(value) for name, value in (case.path_parameters or {}).items()}
    deletes_the_database = (case.method.upper(), case.operation.path.rsplit("/", 1)[-1]) == ("DELETE", "{database}")
    if chance.random() < 0.8 and not deletes_the_database:
        aimed = {"tenant": "default_tenant", "database": sentinel.database, "collection_id": sentinel.target_id}
        if case.method.upper() == "PUT":
            aimed["name"] = sentinel.target_id
        values |= {name: value for name, value in aimed.items() if name in values}
    path: str = case.operation.path
    for name, value in values.items():
        path = path.replace("{" + name + "}", httpx.URL(path="/" + value).raw_path.decode()[1:].replace("/", "%2F"))
    return path


def send(client: httpx.Client, case: Case[Any], path: str) -> httpx.Response:
    content, headers = None, {}
    if not isinstance(case.body, NotSet):
        content = case.body if isinstance(case.body, bytes) else json.dumps(case.body, default=repr).encode()
        headers["content-type"] = case.media_type or "application/json"
    return client.request(case.method, path, params=case.query or None, content=content, headers=headers)


@dataclass
class Fuzzer:
    """Sends what the strategies make up and judges the answers. `sent` counts requests that were answered."""

    client: httpx.Client
    sentinel: Sentinel
    sent: int = 0

    def run(self, operation: Any, mode: GenerationMode, requests: int, number: int) -> None:
        @seed(number)
        @settings(
            max_examples=requests,
            deadline=None,
            database=None,
            phases=[Phase.generate],
            suppress_health_check=list(HealthCheck),
        )
        @given(case=operation.as_strategy(generation_mode=mode), chance=st.integers(0, 2**32))
        def fuzz(case: Case[Any], chance: int) -> None:
            self.send(case, random.Random(chance))

        # An operation without parameters and body has no wrong requests.
        with contextlib.suppress(Unsatisfiable):
            fuzz()

    def send(self, case: Case[Any], chance: random.Random) -> None:
        path = aim(case, self.sentinel, chance)
        response = send(self.client, case, path)
        self.sent += 1
        try:
            answers.check(response.status_code, response.headers.get("content-type"), response.content)
        except Exception as error:
            raise AssertionError(f"{case.method} {path} {case.query} {case.body!r:.2000}") from error


@pytest.mark.timeout(1800)
def test_made_up_requests_are_refused_in_the_contracts_words(server_client: httpx.Client, sentinel: Sentinel) -> None:
    known = operations(server_client.get("/openapi.json").json())
    assert len(known) > 30
    fuzzer = Fuzzer(server_client, sentinel)
    # Some operations run out of different requests, so that one round sends fewer than it was asked for.
    for number in itertools.count():
        each = -(-(REQUESTS - fuzzer.sent) // (len(known) * len(MODES)))
        for operation, mode in itertools.product(known, MODES):
            fuzzer.run(operation, mode, each, number)
        sentinel.check()
        if fuzzer.sent >= REQUESTS:
            break
    # The document's own example may have been deleted, as it should; whoever runs after us wants it.
    again = server_client.post("/api/v2/tenants/default_tenant/databases", json={"name": "default_database"})
    assert again.status_code in (200, 409)
