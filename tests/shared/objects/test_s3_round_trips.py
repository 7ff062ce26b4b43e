"""The requests that a write to S3 takes."""

from __future__ import annotations

from typing import Any

import pytest
from botocore.awsrequest import AWSResponse

from shared.objects import s3


class Silence:
    """The body of an answer that has none."""

    def stream(self) -> list[bytes]:
        return []


def test_a_write_sends_its_body_with_its_head(monkeypatch: pytest.MonkeyPatch) -> None:
    """Else it would wait for an answer to the head, which takes a round trip more."""
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "test")
    sent: list[Any] = []
    headers: Any = {}

    def answer(request: Any, **_: Any) -> Any:
        sent.append(request)
        return AWSResponse(request.url, 200, headers, Silence())

    client: Any = s3._client()
    client.meta.events.register("before-send.s3", answer)
    client.put_object(Bucket="bucket", Key="key", Body=b"data", IfNoneMatch="*")
    assert len(sent) == 1
    assert "Expect" not in sent[0].headers
