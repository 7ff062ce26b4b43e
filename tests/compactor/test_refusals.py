"""What is damaged or does not prove is reported, and nothing is published."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import pyarrow as pa
import pytest

from compactor import merge
from compactor.build import build
from compactor.compaction import Ending
from shared.errors import Corrupt
from shared.log.verification import DamagedEntry
from shared.records.model import Op
from tests.compactor.conftest import Shop
from tests.compactor.steps import row


async def test_a_lost_log_entry_is_reported_and_what_comes_before_it_alone_is_published(shop: Shop) -> None:
    for number in range(3):
        await shop.write(Op.ADD, {f"id{number}": row(random.Random(number))})
    await shop.redis.xdel(shop.keys.log(shop.collection.id, 0), "2-0")
    assert await shop.compactor().compact(shop.collection.id, 0) is Ending.PARTIAL
    with pytest.raises(DamagedEntry, match=r"2-0 of .* the log lost it, before 3-0"):
        await shop.compactor().compact(shop.collection.id, 0)
    await shop.redis.xdel(shop.keys.log(shop.collection.id, 0), "3-0")
    with pytest.raises(DamagedEntry, match=r"3-0 of .* the log lost it, at the end"):
        await shop.compactor().compact(shop.collection.id, 0)
    published = await shop.published()
    assert (published.version, published.covers, published.rows) == (1, 2, 1)


async def test_a_log_that_was_cut_at_its_beginning_is_reported(shop: Shop) -> None:
    for number in range(3):
        await shop.write(Op.ADD, {f"id{number}": row(random.Random(number))})
    await shop.redis.xdel(shop.keys.log(shop.collection.id, 0), "1-0")
    with pytest.raises(DamagedEntry, match=r"1-0 of .* the log lost it, before 2-0"):
        await shop.compactor().compact(shop.collection.id, 0)
    assert await shop.manifest() is None


async def test_a_segment_damaged_in_the_bucket_is_never_built_upon(shop: Shop) -> None:
    await shop.write(Op.ADD, {f"id{n}": row(random.Random(n)) for n in range(30)})
    await shop.compactor().compact(shop.collection.id, 0)
    [ref] = (await shop.published()).segments
    key = f"{ref.info.path}/records.arrow"
    content = bytearray(await shop.objects.get(key))
    content[len(content) // 2] ^= 1
    await shop.objects.put(key, bytes(content))
    await shop.write(Op.ADD, {"new": row(random.Random(1))})
    with pytest.raises(Corrupt, match="checksum"):
        await shop.compactor().compact(shop.collection.id, 0)
    assert (await shop.published()).version == 1


@pytest.mark.parametrize("mistake", ["drops", "invents", "changes"])
async def test_a_compaction_that_does_not_prove_is_not_published(
    shop: Shop, mistake: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    real: Callable[..., Any] = build

    def wrong(*arguments: Any) -> Any:
        *before, tail, params, check, indexing = arguments
        if mistake == "drops":
            tail = tail.slice(1)
        elif mistake == "invents":
            tail = pa.concat_tables([tail, tail.slice(0, 1)])
        else:
            place = tail.schema.get_field_index("document")
            changed = pa.array(["changed"] * tail.num_rows, pa.large_string())
            tail = tail.set_column(place, tail.schema.field(place), changed)
        return real(*before, tail, params, check, indexing)

    monkeypatch.setattr(merge, "build", wrong)
    await shop.write(Op.ADD, {f"id{n}": row(random.Random(n)) for n in range(5)})
    refused = merge.UNPROVEN._value.get()
    with pytest.raises(Corrupt):
        await shop.compactor().compact(shop.collection.id, 0)
    assert merge.UNPROVEN._value.get() == refused + 1
    assert await shop.manifest() is None
    assert [info async for info in shop.objects.list("")] == []
