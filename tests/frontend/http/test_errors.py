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
    # Of a fault of ours a client learns what it may do next; the cause may name addresses, unless it is for clients.
    shown = kind is errors.NotRepeated or answer.status not in (500, 503, 504)
    assert (body["message"] == "why") == shown
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


def test_of_damage_a_client_learns_what_is_damaged_and_nothing_else() -> None:
    def message(error: errors.PolychromeError) -> str:
        answer = error_response(error, "/x")
        assert answer.status == 500
        assert isinstance(answer.body, bytes)
        return str(orjson.loads(answer.body)["message"])

    assert message(errors.Damaged("shard 0 of collection c, c/0/log/7-0")) == (
        "Stored data damaged: shard 0 of collection c, c/0/log/7-0"
    )
    assert message(errors.Corrupt("no such file: /secret/place", "c/0/log/7-0")) == "Stored data damaged: c/0/log/7-0"
    assert message(errors.Corrupt("no such file: /secret/place")) == "Stored data damaged"
