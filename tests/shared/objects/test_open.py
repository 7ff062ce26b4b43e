from __future__ import annotations

from pathlib import Path

import pytest

from shared.errors import Unavailable
from shared.objects.memory import MemoryStore
from shared.objects.open import open_store, verify_conditional_create
from shared.objects.port import ObjectNotFound, UnfitStore


class TellsEverybodyTheyWon(MemoryStore):
    async def create(self, key: str, data: bytes) -> bool:
        await self.put(key, data)
        return True


class KeepsTheLoser(MemoryStore):
    async def create(self, key: str, data: bytes) -> bool:
        created = await super().create(key, data)
        if not created:
            await self.put(key, data)
        return created


@pytest.mark.parametrize("unfit", [TellsEverybodyTheyWon, KeepsTheLoser])
async def test_a_store_that_lets_both_win_is_refused(unfit: type[MemoryStore]) -> None:
    store = unfit(lambda: 0.0)
    with pytest.raises(UnfitStore):
        await verify_conditional_create(store)
    assert [info async for info in store.list("")] == []


async def test_a_directory_survives_being_opened_again(tmp_path: Path) -> None:
    url = f"file://{tmp_path}/with%20space/bucket"
    async with open_store(url) as store:
        await store.put("a", b"1")
    async with open_store(url) as store:
        assert await store.get("a") == b"1"
    assert (tmp_path / "with space" / "bucket" / "a").read_bytes() == b"1"


async def test_s3_keys_stand_below_the_prefix_of_the_url(s3_bucket: str) -> None:
    async with open_store(f"s3://{s3_bucket}/deep/prefix/") as store:
        await store.put("a", b"1")
        assert [info.key async for info in store.list("")] == ["a"]
    async with open_store(f"s3://{s3_bucket}") as store:
        assert [info.key async for info in store.list("")] == ["deep/prefix/a"]


async def test_a_missing_bucket_is_unavailable_rather_than_an_absent_object(s3_bucket: str) -> None:
    from shared.objects.s3 import open_s3

    async with open_s3("no-such-bucket", "") as store:
        with pytest.raises(Unavailable):
            await store.get("a")
    async with open_s3(s3_bucket, "") as store:
        with pytest.raises(ObjectNotFound):
            await store.get("a")


async def test_memory_stores_are_apart() -> None:
    async with open_store("memory://") as one, open_store("memory://") as other:
        await one.put("a", b"1")
        assert [info async for info in other.list("")] == []


@pytest.mark.parametrize(
    "url", ["/plain/path", "file://host/path", "file:///", "s3://", "s3:///prefix", "http://x/y", "s3://b/a//b"]
)
async def test_other_urls_are_refused(url: str) -> None:
    with pytest.raises(ValueError, match=r"is not"):
        async with open_store(url):
            pass
