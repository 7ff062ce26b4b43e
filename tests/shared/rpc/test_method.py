"""Requests and responses of methods on the wire."""

from __future__ import annotations

import msgspec
import pytest

from shared.errors import InvalidArgument
from shared.rpc.method import Method


class _Asked(msgspec.Struct):
    text: str


class _Told(msgspec.Struct):
    length: int


MEASURE = Method("measure", _Asked, _Told)


def test_requests_and_responses_come_back_as_they_were() -> None:
    assert MEASURE.decode_request(memoryview(MEASURE.encode_request(_Asked("abc")))) == _Asked("abc")
    assert MEASURE.decode_response(MEASURE.encode_response(_Told(3))) == _Told(3)


@pytest.mark.parametrize("payload", [b"", b"\xc1", msgspec.msgpack.encode({"text": 3}), msgspec.msgpack.encode({})])
def test_a_payload_that_is_no_request_is_the_callers_mistake(payload: bytes) -> None:
    with pytest.raises(InvalidArgument, match="not a _Asked"):
        MEASURE.decode_request(memoryview(payload))
