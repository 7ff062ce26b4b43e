"""A method of calls between processes, as both sides know it: its name on the wire, its request and response types."""

from __future__ import annotations

from typing import Generic, TypeVar

import msgspec

from shared.errors import InvalidArgument

Request = TypeVar("Request", bound=msgspec.Struct)
Response = TypeVar("Response", bound=msgspec.Struct)

_encode = msgspec.msgpack.Encoder().encode


class RawMethod(Generic[Request]):
    """A method whose answer is bytes that no process decodes, such as the body of a client's answer."""

    def __init__(self, name: str, request_type: type[Request]) -> None:
        self.name = name
        self._request_name = request_type.__name__
        self._request_decoder = msgspec.msgpack.Decoder(request_type)

    def encode_request(self, request: Request) -> bytes:
        """The payload of a call."""
        return _encode(request)

    def decode_request(self, payload: memoryview) -> Request:
        """The request of a call. Raises InvalidArgument for a payload that is none."""
        try:
            return self._request_decoder.decode(payload)
        except msgspec.MsgspecError as error:
            raise InvalidArgument(f"not a {self._request_name}: {error}") from error


class Method(RawMethod[Request], Generic[Request, Response]):
    """A method whose answer is a response."""

    def __init__(self, name: str, request_type: type[Request], response_type: type[Response]) -> None:
        super().__init__(name, request_type)
        self._response_decoder = msgspec.msgpack.Decoder(response_type)

    def encode_response(self, response: Response) -> bytes:
        """The payload of an answer."""
        return _encode(response)

    def decode_response(self, payload: bytes | memoryview) -> Response:
        """The response in an answer. Raises MsgspecError for a payload that is none."""
        return self._response_decoder.decode(payload)
