"""Sends the requests of a recorded case to a server and compares what it answers."""

import base64
import json
import re
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import httpx
import msgspec

from tests.contract.case_files import Case, Expectation, Step
from tests.contract.matching import difference, shown

EMPTY: Final = "<empty>"
TEXT: Final = "<text>"
"""`"body": "<empty>"` expects no body at all, `{"<text>": ...}` one that is compared as text whatever it is."""

TEXT_CHARACTERS_MAX: Final = 200

_VARIABLE: Final = re.compile(r"\{([A-Za-z_][A-Za-z0-9_]*)\}")

Variables = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Mismatch:
    """The step of a case, counted from 0, whose answer was not the expected one."""

    step: int
    reason: str


def replay_case(client: httpx.Client, case: Case) -> list[Mismatch]:
    """Every step whose answer differs; an empty list when the server answered as recorded.

    Steps after a wrong answer are still sent. The case ends early where going on would mean nothing: without an answer,
    or without a variable that should have been taken from one.
    """
    variables: Variables = {"tenant": "default_tenant", "database": "default_database", "u": uuid.uuid4().hex[:10]}
    found: list[Mismatch] = []
    for number, step in enumerate(case.steps):
        target = f"{step.method} {filled(step.path, variables)}"
        try:
            answer = _send(client, step, variables)
        except httpx.HTTPError as error:
            found.append(Mismatch(number, f"{target}: {type(error).__name__}: {error}"))
            break
        reason = _unexpected(step, answer, variables)
        if reason is not None:
            found.append(Mismatch(number, f"{target}: {reason}"))
        try:
            variables |= _captured(step, answer)
        except (ValueError, LookupError, TypeError) as error:
            found.append(Mismatch(number, f"{target}: nothing to capture: {type(error).__name__}: {error}"))
            break
    return found


def filled(value: Any, variables: Mapping[str, Any]) -> Any:
    """A JSON value with variables in the place of their names; names of no variable stay."""
    match value:
        case str():
            return _VARIABLE.sub(lambda name: str(variables.get(name[1], name[0])), value)
        case list():
            return [filled(item, variables) for item in value]
        case dict():
            return {filled(name, variables): filled(item, variables) for name, item in value.items()}
    return value


def _send(client: httpx.Client, step: Step, variables: Variables) -> httpx.Response:
    headers = httpx.Headers(filled(step.headers, variables))
    content = _content(step, variables)
    if step.body is not msgspec.UNSET:
        headers.setdefault("Content-Type", "application/json")
    if step.raw_gen is not None:
        headers["Connection"] = "close"  # a server may hang up after refusing a huge body
    request = client.build_request(step.method, filled(step.path, variables), headers=headers, content=content)
    try:
        return client.send(request)
    except httpx.RemoteProtocolError:  # the server had closed the kept-alive connection meanwhile: once more
        return client.send(request)


def _content(step: Step, variables: Variables) -> bytes | None:
    if step.raw is not None:
        return bytes(filled(step.raw, variables).encode())
    if step.raw_b64 is not None:
        return base64.b64decode(step.raw_b64)
    if step.raw_gen is not None:
        return step.raw_gen.text().encode()
    if step.body is not msgspec.UNSET:
        return json.dumps(filled(step.body, variables), ensure_ascii=False).encode()
    return None


def _unexpected(step: Step, answer: httpx.Response, variables: Variables) -> str | None:
    """How the answer differs from the expected one, None when it is that one or one as good."""
    reasons = [_difference_of_answers(one, answer, variables) for one in (step.expect, *step.also_ok)]
    return None if None in reasons else reasons[0]


def _difference_of_answers(expected: Expectation, answer: httpx.Response, variables: Variables) -> str | None:
    if answer.status_code != expected.status:
        return f"expected status {expected.status}, got {answer.status_code}: {_text(answer)}"
    for name, value in expected.headers.items():
        found = difference(filled(value, variables), answer.headers.get(name), f"header {name}")
        if found is not None:
            return found
    if expected.body is msgspec.UNSET:
        return None
    return _difference_of_bodies(filled(expected.body, variables), answer)


def _difference_of_bodies(expected: Any, answer: httpx.Response) -> str | None:
    if expected == EMPTY:
        return f"expected no body, got {_text(answer)}" if answer.content else None
    if isinstance(expected, dict) and expected.keys() == {TEXT}:
        return difference(expected[TEXT], answer.text, "text")
    try:
        given = json.loads(answer.content, parse_constant=_refuse)
    except ValueError:
        return f"expected JSON {shown(expected)}, got {_text(answer)}"
    return difference(expected, given)


def _text(answer: httpx.Response) -> str:
    """The body for a line of a report, on one line and cut when it is long."""
    return " ".join(answer.text[:TEXT_CHARACTERS_MAX].splitlines()) or "(no body)"


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is no JSON")


def _captured(step: Step, answer: httpx.Response) -> Variables:
    """What later steps need of this answer. Raises ValueError, LookupError, TypeError when it is not there."""
    if not step.capture:
        return {}
    document = json.loads(answer.content)
    return {name: _at(document, pointer.split("/")[1:]) for name, pointer in step.capture.items()}


def _at(document: Any, pointer: Sequence[str]) -> Any:
    for part in pointer:
        document = document[int(part) if isinstance(document, list) else part.replace("~1", "/").replace("~0", "~")]
    return document
