"""What any answer may look like, whatever was sent."""

import json
from typing import Final

_PLAIN_413: Final = b"Payload too large"
_FROM_THE_ROUTER: Final = (404, 405)


def check(status: int, content_type: str | None, body: bytes) -> None:
    """2xx with JSON, or 4xx in the form of docs/wire.md, section 2."""
    if status < 300:
        json.loads(body)
        return
    if status in (303, *_FROM_THE_ROUTER) and not body:
        return
    if status == 413 and body == _PLAIN_413 and content_type is None:
        return
    assert 400 <= status < 500, f"{status}: {body[:500]!r}"
    error = json.loads(body)
    assert set(error) == {"error", "message"}, error
    assert all(isinstance(value, str) for value in error.values()), error
    assert content_type == "application/json"
    assert "Traceback" not in error["message"]
    assert ".py" not in error["message"]
