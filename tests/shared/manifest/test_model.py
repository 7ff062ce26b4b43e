from __future__ import annotations

import msgspec
import pytest

from shared.errors import Corrupt
from shared.manifest.model import ParentRef, SegmentRef, decode
from shared.objects.keys import manifest_key, parse_manifest_key
from tests.shared.manifest.making import manifest, segment


def test_a_manifest_survives_its_bytes() -> None:
    written = manifest(segments=[segment(dead=[1, 9]), segment("s2")])
    assert decode(written.encode()) == written
    assert list(decode(written.encode()).segments[0].bitmap()) == [1, 9]
    assert written.rows == 18


def test_a_manifest_of_format_1_is_read_and_is_of_no_epoch() -> None:
    written = manifest(segments=[segment(dead=[1, 9])], format=1)
    assert b"checksum" not in written.encode().replace(b'"checksum": "ab"', b"")
    assert decode(written.encode()) == written
    assert written.epoch == 0


def test_any_flipped_bit_of_a_manifest_is_noticed() -> None:
    intact = manifest(segments=[segment(dead=[1, 9])], epoch=3).encode()
    for bit in range(8 * len(intact)):
        flipped = bytearray(intact)
        flipped[bit // 8] ^= 1 << bit % 8
        with pytest.raises(Corrupt):
            decode(bytes(flipped))


def test_keys_sort_by_version_and_are_parsed_back() -> None:
    assert manifest_key("c", 3, 7) == "c/3/manifests/00000000000000000007.json"
    assert parse_manifest_key(manifest_key("c", 3, 7)) == ("c", 3, 7)
    assert manifest_key("c", 3, 9) < manifest_key("c", 3, 10)
    for key in ("c/3/manifests/7.json", "c/3/segments/s/records.arrow", "probes/x", manifest_key("c", 3, 7) + "x"):
        assert parse_manifest_key(key) is None


@pytest.mark.parametrize(
    "broken",
    [
        b"",
        b"{}",
        b"\xff",
        manifest(format=3).encode(),
        manifest(3, ParentRef(3, "ab")).encode(),
        manifest(segments=[segment()], rows=9).encode(),
    ],
)
def test_bytes_that_are_no_manifest_are_corrupt(broken: bytes) -> None:
    with pytest.raises(Corrupt):
        decode(broken)


@pytest.mark.parametrize(
    "ref",
    [
        msgspec.structs.replace(segment(), tombstones="%"),
        msgspec.structs.replace(segment(), tombstones="AAAA"),
        msgspec.structs.replace(segment(dead=[1]), dead=2),
        segment(rows=5, dead=[5]),
    ],
)
def test_tombstones_that_do_not_fit_are_corrupt(ref: SegmentRef) -> None:
    with pytest.raises(Corrupt):
        ref.bitmap()
