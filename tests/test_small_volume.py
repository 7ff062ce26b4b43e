"""The volume that tests fill refuses what does not fit, whether it is mounted or counted."""

from __future__ import annotations

import errno
import shutil
from pathlib import Path

import pytest

from tests.small_volume import VOLUME_BYTES, count_volume, small_volume

__all__ = ["small_volume"]


@pytest.fixture
def counted_volume(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    root = tmp_path / "counted"
    root.mkdir()
    count_volume(root, VOLUME_BYTES, monkeypatch)
    return root


@pytest.mark.parametrize("kind", ["small_volume", "counted_volume"])
def test_a_volume_takes_what_fits_and_refuses_what_does_not(
    request: pytest.FixtureRequest, tmp_path: Path, kind: str
) -> None:
    volume: Path = request.getfixturevalue(kind)
    large = tmp_path / "large"
    large.write_bytes(bytes(VOLUME_BYTES // 2 + 1))
    (volume / "folder").mkdir()
    (volume / "folder" / "first").write_bytes(bytes(VOLUME_BYTES // 2))
    with (
        pytest.raises(OSError, match="No space left") as refused,
        large.open("rb") as source,
        (volume / "second").open("xb") as target,
    ):
        shutil.copyfileobj(source, target, 64 * 1024)
    assert refused.value.errno == errno.ENOSPC
    (volume / "second").unlink()
    with pytest.raises(OSError, match="No space left"), open(volume / "third", "wb") as target:  # noqa: PTH123 (as boto3 does)
        target.write(bytes(VOLUME_BYTES // 2 + 1))
    (volume / "third").unlink()
    shutil.rmtree(volume / "folder")
    (volume / "fourth").write_bytes(bytes(VOLUME_BYTES // 2 + 1))
    with (volume / "fourth").open("r+b") as target:
        target.write(b"over what is there")
