from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import boto3
import pytest

from shared.objects.directory import open_directory
from shared.objects.memory import MemoryStore
from shared.objects.port import ObjectStore
from shared.objects.s3 import open_s3
from tests.shared.objects.ministack import running_ministack


@pytest.fixture(scope="session")
def s3_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with running_ministack(tmp_path_factory.mktemp("ministack") / "data") as url:
        yield url


@pytest.fixture
def s3_bucket(s3_server: str, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("AWS_ENDPOINT_URL", s3_server)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "test")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "test")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    client = boto3.client("s3")
    client.create_bucket(Bucket="objects")
    for found in client.list_objects_v2(Bucket="objects").get("Contents", []):
        client.delete_object(Bucket="objects", Key=found["Key"])
    client.close()
    return "objects"


@pytest.fixture(params=["memory", "directory", "s3"])
async def store(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[ObjectStore]:
    if request.param == "memory":
        yield MemoryStore(lambda: 1000.0)
    elif request.param == "directory":
        async with open_directory(tmp_path / "bucket") as opened:
            yield opened
    else:
        async with open_s3(request.getfixturevalue("s3_bucket"), "some/prefix/") as opened:
            yield opened
