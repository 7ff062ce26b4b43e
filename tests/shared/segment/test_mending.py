"""Whatever derived file of a segment is damaged in the bucket, the cache has one in its place that says the same."""

from __future__ import annotations

import asyncio
import os
import random
import shutil
from pathlib import Path

import numpy as np
import orjson
import pyarrow as pa
import pytest

from shared.errors import Corrupt
from shared.limits import GRAPH_ROWS_MIN
from shared.objects.memory import MemoryStore
from shared.records.indexing import Indexing
from shared.segment.cache import SegmentCache
from shared.segment.format import BASIS, CODES, GRAPH, IDS, METADATA, RECORDS, SPARSE, TEXT, SegmentInfo, verify
from shared.segment.mending import NOTE, as_held
from shared.segment.reader import open_segment
from shared.segment.writer import write_segment
from tests.shared.segment.tables import params, table, vectors_of

INDEXING = Indexing(off=["float"], sparse=["words"])
REBUILT = (IDS, METADATA, SPARSE, TEXT, CODES)


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, SegmentInfo]:
    """A segment with every file that there is, written once."""
    folder = tmp_path_factory.mktemp("written") / "s"
    records = table(vectors_of(GRAPH_ROWS_MIN, 128))
    words = [
        orjson.dumps({"n": row, "f": 0.5, "words": {"#type": "sparse_vector", "indices": [row % 7], "values": [1.5]}})
        for row in range(GRAPH_ROWS_MIN)
    ]
    place = records.schema.get_field_index("metadata")
    texts = pa.array([word.decode() for word in words], records.schema.field(place).type)
    records = records.set_column(place, records.schema.field(place), texts)
    info = write_segment(folder, "s", "c/0/segments/s", records, params(), indexing=INDEXING).info
    assert {file.name for file in info.files} == {RECORDS, GRAPH, BASIS, *REBUILT}
    return folder, info


class Bucket(MemoryStore):
    """A bucket with the written segment."""

    def __init__(self) -> None:
        super().__init__(lambda: 0.0)

    @staticmethod
    async def of(folder: Path, info: SegmentInfo) -> Bucket:
        bucket = Bucket()
        for file in info.files:
            await bucket.put(info.key(file.name), folder / file.name)
        return bucket

    async def damage(self, key: str, how: str, chance: random.Random) -> None:
        data = bytearray(await self.get(key))
        if how == "missing":
            await self.delete([key])
            return
        if how == "cut":
            del data[chance.randrange(len(data)) :]
        else:
            data[chance.randrange(len(data))] ^= 1 << chance.randrange(8)
        await self.put(key, bytes(data))


async def opened(bucket: Bucket, root: Path) -> SegmentCache:
    cache = SegmentCache(bucket, root, 1 << 30)
    await cache.open()
    return cache


@pytest.mark.parametrize("how", ["changed", "cut", "missing"])
@pytest.mark.parametrize("name", [GRAPH, BASIS, *REBUILT])
async def test_a_damaged_derived_file_is_made_again_or_done_without(
    written: tuple[Path, SegmentInfo], tmp_path: Path, name: str, how: str
) -> None:
    folder, info = written
    bucket = await Bucket.of(folder, info)
    await bucket.damage(info.key(name), how, random.Random(f"{name} {how}"))
    cache = await opened(bucket, tmp_path)
    async with cache.hold(info, INDEXING) as held:
        assert set(cache.damaged(info.id)) == {name}
        present = await asyncio.to_thread(lambda: {path.name: path.read_bytes() for path in held.iterdir()})
        left_out = {GRAPH, BASIS} if name in (GRAPH, BASIS) else set()
        assert present.keys() == {file.name for file in info.files} - left_out | {NOTE}
        for each in present.keys() - {NOTE}:
            assert present[each] == await asyncio.to_thread((folder / each).read_bytes), each
        segment, whole = open_segment(held, as_held(held, info)), open_segment(folder, info)
        assert segment.find(["id-7", "none"]) == whole.find(["id-7", "none"])
        queries = vectors_of(3, 128, seed=1)
        exact = np.argsort(((whole.vectors[None] - queries[:, None]) ** 2).sum(axis=2), axis=1)[:, :10]
        if left_out:
            assert [rows.tolist() for rows in segment.search(queries, 10)] == exact.tolist()
        segment.close()
        whole.close()


async def test_a_mended_segment_is_found_again_by_the_next_process_and_verified(
    written: tuple[Path, SegmentInfo], tmp_path: Path
) -> None:
    folder, info = written
    bucket = await Bucket.of(folder, info)
    await bucket.damage(info.key(TEXT), "changed", random.Random(1))
    await bucket.damage(info.key(GRAPH), "missing", random.Random(1))
    async with (await opened(bucket, tmp_path)).hold(info, INDEXING) as held:
        pass
    later = await opened(bucket, tmp_path)
    async with later.hold(info) as held:
        assert set(later.damaged(info.id)) == {TEXT, GRAPH}
        verify(held, as_held(held, info))
    for name in (NOTE, METADATA):
        text = await asyncio.to_thread((held / name).read_bytes)
        await asyncio.to_thread((held / name).write_bytes, text[:-9] + b"x" + text[-8:])
        again = await opened(bucket, tmp_path)
        async with again.hold(info, INDEXING) as held:
            verify(held, as_held(held, info))


async def test_damaged_records_are_named_before_all_else_and_nothing_is_made_of_them(
    written: tuple[Path, SegmentInfo], tmp_path: Path
) -> None:
    folder, info = written
    bucket = await Bucket.of(folder, info)
    for name in (GRAPH, RECORDS, IDS):
        await bucket.damage(info.key(name), "changed", random.Random(2))
    cache = await opened(bucket, tmp_path)
    with pytest.raises(Corrupt, match="checksum") as caught:
        async with cache.hold(info, INDEXING):
            pass
    assert caught.value.name == info.key(RECORDS)
    assert await asyncio.to_thread(os.listdir, tmp_path) == [".incoming"]


async def test_a_whole_segment_has_no_note(written: tuple[Path, SegmentInfo], tmp_path: Path) -> None:
    folder, info = written
    cache = await opened(await Bucket.of(folder, info), tmp_path)
    async with cache.hold(info, INDEXING) as held:
        assert as_held(held, info) is info
        assert not cache.damaged(info.id)
        shutil.copy(folder / IDS, tmp_path)
