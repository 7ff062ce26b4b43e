from __future__ import annotations

import orjson
import pytest

from frontend.http.errors import WIRE, BodyTimeout, BrokenBody, body_of, error_response, wire_of
from shared import errors


@pytest.mark.parametrize("kind", [*errors.BY_CODE.values(), BodyTimeout, BrokenBody])
def test_every_class_has_an_answer_of_its_own(kind: type[errors.PolychromeError]) -> None:
    assert kind in WIRE
    answer = error_response(kind("why"), "/x")
    assert isinstance(answer.body, bytes)
    body = orjson.loads(answer.body)
    assert set(body) == {"error", "message"}
    # Of a fault of ours a client learns what it may do next; the cause may name addresses.
    assert (body["message"] == "why") == (answer.status not in (500, 503, 504))
    assert body["message"]


def test_a_class_nobody_mapped_is_answered_as_its_parent() -> None:
    class Special(errors.NotFound):
        pass

    assert wire_of(Special("x")) == WIRE[errors.NotFound]


def test_backoff_says_when_to_try_again() -> None:
    answer = error_response(errors.Backoff("full", retry_after_s=7), "/x")
    assert answer.status == 429
    assert b"\r\nRetry-After: 7\r\n" in answer._head((1, 1))


def test_a_message_that_is_no_text_does_not_break_the_answer() -> None:
    assert orjson.loads(body_of("E", "a\udcffb"))["message"] == "a?b"
