"""The replayer itself: on servers that are played, and with expectations that are wrong on purpose."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest

from tests.contract.case_files import CASES, Case, read_cases
from tests.contract.replay import main
from tests.contract.replaying import replay_case

Handler = Callable[[httpx.Request], httpx.Response]


def case_of(*steps: dict[str, Any]) -> Case:
    return msgspec.convert({"case": "played", "area": "tests", "steps": list(steps)}, Case)


def step(expect: dict[str, Any], path: str = "/", method: str = "GET", **others: Any) -> dict[str, Any]:
    return {"method": method, "path": path, "expect": {"status": 200} | expect} | others


def differing(handler: Handler, *steps: dict[str, Any]) -> list[int]:
    """The steps that the replayer complains about."""
    with httpx.Client(base_url="http://server", transport=httpx.MockTransport(handler)) as client:
        return [mismatch.step for mismatch in replay_case(client, case_of(*steps))]


def answering(*args: Any, **kwargs: Any) -> Handler:
    return lambda _: httpx.Response(*args, **kwargs)


def echo(request: httpx.Request) -> httpx.Response:
    """Says what it was sent."""
    told = {"path": request.url.path, "type": request.headers.get("Content-Type"), "sent": request.content.decode()}
    return httpx.Response(200, json=told)


@pytest.mark.parametrize(
    ("answer", "expect"),
    [
        (answering(200, json={}), {"body": {}}),
        (answering(200, content=b"null"), {"body": None}),
        (answering(200, content=b"anything"), {}),
        (answering(200), {"body": "<empty>"}),
        (answering(200, text="Payload too large"), {"body": {"<text>": "Payload too large"}}),
        (answering(200, json=[1]), {"body": {"<text>": "<re:1>"}}),
        (answering(200, json=1, headers={"Allow": "GET,HEAD"}), {"body": 1, "headers": {"allow": "GET,HEAD"}}),
        (answering(200, json=1), {"body": 1, "headers": {"allow": None}}),
    ],
)
def test_an_answer_as_expected_is_no_mismatch(answer: Handler, expect: dict[str, Any]) -> None:
    assert differing(answer, step(expect)) == []


@pytest.mark.parametrize(
    ("answer", "expect"),
    [
        (answering(201, json={}), {"body": {}}),
        (answering(200, json={}), {"body": None}),
        (answering(200, content=b"{"), {"body": "<any>"}),
        (answering(200, content=b"[NaN]"), {"body": ["<any>"]}),
        (answering(200), {"body": "<any>"}),
        (answering(200, json={}), {"body": "<empty>"}),
        (answering(200, text="too large"), {"body": {"<text>": "Payload too large"}}),
        (answering(200, json=1), {"body": 1, "headers": {"allow": "GET,HEAD"}}),
        (answering(200, json=1, headers={"Allow": "GET"}), {"body": 1, "headers": {"allow": "GET,HEAD"}}),
        (answering(200, json=1, headers={"Allow": "GET"}), {"body": 1, "headers": {"allow": None}}),
    ],
)
def test_another_answer_than_the_expected_one_is_a_mismatch(answer: Handler, expect: dict[str, Any]) -> None:
    assert differing(answer, step(expect)) == [0]


def test_an_answer_that_is_as_good_is_no_mismatch() -> None:
    as_good = [{"status": 404}, {"status": 409, "body": {"error": "<str>"}}]
    assert differing(answering(409, json={"error": "x"}), step({"body": {}}, also_ok=as_good)) == []
    assert differing(answering(409, json={"fault": "x"}), step({"body": {}}, also_ok=as_good)) == [0]


def test_all_kinds_of_bodies_are_sent_as_they_stand_there() -> None:
    def sent(text: str, content_type: str | None = None) -> dict[str, Any]:
        return {"body": {"path": "/", "type": content_type, "sent": text}}

    assert not differing(
        echo,
        step(sent("")),
        step(sent('{"a": "é", "n": 36893488147419103232}', "application/json"), body={"a": "é", "n": 2**65}),
        step(sent("null", "text/plain"), body=None, headers={"Content-Type": "text/plain"}),
        step(sent('{"a":1,"a":2}'), raw='{"a":1,"a":2}'),
        step(sent("xyz"), raw_b64="eHl6"),
        step(sent("[1,1,1,0]"), raw_gen={"pre": "[", "unit": "1,", "times": 3, "post": "0]"}),
    )


def test_what_was_captured_stands_in_for_its_name_everywhere() -> None:
    assert not differing(
        lambda request: httpx.Response(200, json=[{"a/b": request.url.path, "sent": request.content.decode()}]),
        step({"body": "<any>"}, path="/first", capture={"place": "/0/a~1b"}),
        step(
            {"body": [{"a/b": "/second{place}/x", "sent": '{"{place}": ["in {place}, {other}"]}'}]},
            path="/second{place}/x",
            body={"{place}": ["in {place}, {other}"]},
        ),
    )


def test_each_replay_has_a_text_of_its_own() -> None:
    seen: list[str] = []

    def handler(request: httpx.Request) -> httpx.Response:
        seen.append(request.url.path)
        return httpx.Response(200)

    for _ in range(2):
        assert not differing(handler, step({}, path="/{tenant}/{u}"), step({}, path="/{tenant}/{u}"))
    assert seen[0] == seen[1] != seen[2] == seen[3]
    assert seen[0].startswith("/default_tenant/")


def test_steps_after_a_wrong_answer_are_compared_as_well() -> None:
    assert differing(answering(200, json=1), step({"body": 2}), step({"body": 1}), step({"body": 3})) == [0, 2]


def test_a_case_ends_where_something_that_it_needs_is_missing() -> None:
    step_0, step_1 = step({"body": {}}, capture={"id": "/id"}), step({"body": 5})
    assert differing(answering(200, json={}), step_0, step_1) == [0]


def test_a_lost_connection_is_tried_once_more_and_then_a_mismatch() -> None:
    lost: list[httpx.Request] = []

    def handler(request: httpx.Request) -> httpx.Response:
        if len(lost) % 2 == 0 or request.url.path == "/lost":
            lost.append(request)
            raise httpx.RemoteProtocolError("closed", request=request)
        return httpx.Response(200)

    assert differing(handler, step({}), step({}, path="/lost"), step({})) == [1]
    assert [request.url.path for request in lost] == ["/", "/lost", "/lost"]


def test_a_misspelt_member_of_a_case_is_an_error(tmp_path: Path) -> None:
    file = tmp_path / "cases.jsonl"
    file.write_text(json.dumps({"case": "a", "area": "b", "steps": [step({"boddy": {}})]}))
    with pytest.raises(msgspec.ValidationError, match="boddy"):
        read_cases(file)


def test_no_two_recorded_cases_share_a_name() -> None:
    for file in sorted(CASES.glob("*.jsonl")):
        cases = read_cases(file)
        assert len({case.name for case in cases}) == len(cases) > 0


def test_the_command_passes_on_a_right_server_and_fails_on_wrong_expectations(
    plain_url: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recorded = CASES / "cases.jsonl"
    assert main([plain_url, str(recorded), "--area", "system,tenants"]) == 0
    assert capsys.readouterr().out.splitlines()[-1].endswith(" passed, 0 failed")

    wrong = tmp_path / "wrong.jsonl"
    wrong.write_text(
        json.dumps({"case": "right", "area": "a", "steps": [step({"body": "1.0.0"}, path="/api/v2/version")]})
        + "\n"
        + json.dumps({"case": "wrong", "area": "b", "steps": [step({"body": "1.0.1"}, path="/api/v2/version")]})
    )
    assert main([plain_url, str(wrong)]) == 1
    assert capsys.readouterr().out.splitlines() == [
        'FAIL b/wrong step 0: GET /api/v2/version: $: expected "1.0.1", got "1.0.0"',
        "a                        1/1",
        "b                        0/1",
        "1 passed, 1 failed",
    ]
    assert main([plain_url, str(wrong), "--skip", "b"]) == 0
    with pytest.raises(SystemExit, match="2"):
        main([plain_url, str(wrong), "--skip", "a,b"])
