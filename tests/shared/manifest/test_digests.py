"""A manifest proves against the records that it says are alive, which are read alone."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest
from pyroaring import BitMap

from shared.errors import Corrupt
from shared.manifest import digests
from shared.manifest.digests import verify_digest
from shared.manifest.model import Manifest, SegmentRef
from shared.objects.memory import MemoryStore
from shared.segment.format import RECORDS
from tests.shared.manifest.making import proving_manifest


@pytest.fixture(params=[1 << 22, 16 * 64], ids=["whole", "in chunks"])
def chunked(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(digests, "CHUNK_BYTES", request.param)


@pytest.fixture
async def proven(objects: MemoryStore, tmp_path: Path) -> Manifest:
    return await proving_manifest(objects, tmp_path, rows=(700, 30), dead=([3, 4, 650], []), format=1)


@pytest.mark.usefixtures("chunked")
async def test_a_manifest_of_the_live_records_proves(objects: MemoryStore, proven: Manifest) -> None:
    await verify_digest(objects, proven)


@pytest.mark.usefixtures("chunked")
@pytest.mark.parametrize(("segment", "dead"), [(0, [3, 4]), (0, [3, 4, 651]), (0, [3, 4, 650, 699]), (1, [0])])
async def test_a_tombstone_more_or_less_or_elsewhere_does_not_prove(
    objects: MemoryStore, proven: Manifest, segment: int, dead: list[int]
) -> None:
    refs = list(proven.segments)
    refs[segment] = SegmentRef.of(refs[segment].info, BitMap(dead))
    with pytest.raises(Corrupt) as raised:
        await verify_digest(objects, msgspec.structs.replace(proven, segments=refs))
    assert raised.value.name == proven.key


async def test_damaged_records_are_blamed_themselves(objects: MemoryStore, proven: Manifest) -> None:
    key = proven.segments[0].info.key(RECORDS)
    intact = await objects.get(key)
    for position in (len(intact) // 2, digests._digests_at(intact[: digests.HEAD_BYTES], proven.segments[0].info)):
        data = bytearray(intact)
        data[position] ^= 1
        await objects.put(key, bytes(data))
        wrong = msgspec.structs.replace(proven, digest="0" * 32)
        with pytest.raises(Corrupt) as raised:
            await verify_digest(objects, wrong)
        assert raised.value.name == key


@pytest.mark.parametrize("bytes_left", [0, 5, 100, 2000, 30_000])
async def test_a_file_that_is_cut_or_missing_is_named(objects: MemoryStore, proven: Manifest, bytes_left: int) -> None:
    key = proven.segments[0].info.key(RECORDS)
    data = await objects.get(key)
    if bytes_left:
        await objects.put(key, data[:bytes_left])
    else:
        await objects.delete([key])
    with pytest.raises(Corrupt) as raised:
        await verify_digest(objects, msgspec.structs.replace(proven, digest="0" * 32))
    assert raised.value.name == key
