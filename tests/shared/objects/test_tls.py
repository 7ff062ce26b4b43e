"""A bucket over https, whose certificate is of an authority of our own."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest

from polychrome.bucket import create_bucket
from shared.errors import Unavailable
from shared.objects.open import open_store, verify_conditional_create
from shared.objects.s3 import open_s3
from tests.certificates import Authority
from tests.shared.objects.ministack import running_ministack

BUCKET = "over-tls"


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("tls") / "ours")


@pytest.fixture(scope="module")
def endpoint(tmp_path_factory: pytest.TempPathFactory, authority: Authority) -> Iterator[str]:
    pair = authority.sign("bucket")
    folder = tmp_path_factory.mktemp("objects") / "data"
    with running_ministack(folder, tls=(pair.certificate, pair.key)) as url:
        yield url


@pytest.fixture
def environ(endpoint: str, monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    given = {"AWS_ENDPOINT_URL_S3": endpoint, "AWS_REGION": "us-east-1"}
    given |= {"AWS_ACCESS_KEY_ID": "polychrome", "AWS_SECRET_ACCESS_KEY": "polychrome-secret"}
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    return monkeypatch


async def test_a_bucket_is_used_whose_authority_is_named(environ: pytest.MonkeyPatch, authority: Authority) -> None:
    environ.setenv("AWS_CA_BUNDLE", str(authority.certificate))
    said: list[str] = []
    await asyncio.to_thread(create_bucket, f"s3://{BUCKET}", said.append)
    assert said
    async with open_store(f"s3://{BUCKET}/some") as store:
        await verify_conditional_create(store)
        data = bytes(range(256)) * 50_000
        await store.create("large", data)
        assert await store.get("large") == data


@pytest.mark.parametrize("trusted", ["nobody of ours", "another authority", "a file that is not there"])
async def test_nothing_is_sent_to_a_bucket_that_is_not_trusted(
    environ: pytest.MonkeyPatch, tmp_path: Path, trusted: str
) -> None:
    environ.delenv("AWS_CA_BUNDLE", raising=False)
    if trusted == "another authority":
        environ.setenv("AWS_CA_BUNDLE", str(Authority(tmp_path / "theirs").certificate))
    elif trusted == "a file that is not there":
        environ.setenv("AWS_CA_BUNDLE", str(tmp_path / "nothing.pem"))
    async with open_s3(BUCKET, "") as store:  # without retries
        with pytest.raises(Unavailable):
            await store.get("anything")
