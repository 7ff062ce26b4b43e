from __future__ import annotations

from pathlib import Path

import pytest

from shared.process.huge_pages import in_huge_pages

CHOICE = Path("/sys/kernel/mm/transparent_hugepage/enabled")
SIZE = 64 * 1024 * 1024


def _huge_kib() -> int:
    lines = Path("/proc/self/smaps_rollup").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("AnonHugePages:"))


def test_memory_keeps_its_content() -> None:
    with in_huge_pages():
        content = bytearray(range(256)) * (SIZE // 256)
    assert content[: 1 << 20] == bytes(range(256)) * (1 << 12)
    assert content[-256:] == bytes(range(256))


@pytest.mark.skipif(not CHOICE.exists() or "[never]" in CHOICE.read_text(), reason="no huge pages here")
def test_what_is_allocated_inside_lies_in_huge_pages() -> None:
    before = _huge_kib()
    with in_huge_pages():
        content = bytearray(b"x") * SIZE
    if _huge_kib() == before:
        pytest.skip("the kernel moves memory only by and by")
    assert _huge_kib() - before > SIZE // 1024 // 2
    assert len(content) == SIZE


def test_what_fails_inside_fails_as_it_is() -> None:
    with pytest.raises(ValueError, match="as it is"), in_huge_pages():
        raise ValueError("as it is")
