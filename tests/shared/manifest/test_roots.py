"""Roots: what is read back is what was written, whole and under its own key, or it is Corrupt."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from shared.cluster.placement import Layout
from shared.errors import Corrupt
from shared.log.state import Pointer
from shared.manifest.roots import Root, RootStore, decode_root, make_root
from shared.objects.keys import parse_root_key, root_key
from shared.objects.memory import MemoryStore

LAYOUT = Layout(4, 3)
POINTERS = [Pointer(7, "aa", 90), None, Pointer(2, "bb", 100)]


def root(epoch: int = 1, position: int = 100, **changes: Any) -> Root:
    made = make_root("c", epoch, position, LAYOUT, POINTERS, "test", 1.5)
    return msgspec.structs.replace(made, **changes) if changes else made


def test_a_root_reads_back_as_it_was_written() -> None:
    read = decode_root(root().encode(), root_key("c", 1, 100))
    assert (read.shards, read.pointers, read.position, read.epoch) == (LAYOUT, POINTERS, 100, 1)
    assert read.encode() == root().encode()


def test_a_changed_byte_anywhere_in_a_root_is_noticed() -> None:
    data = root().encode()
    for place in range(len(data)):
        for other in (data[place] ^ 1, data[place] ^ 0x20):
            with pytest.raises(Corrupt):
                decode_root(data[:place] + bytes([other]) + data[place + 1 :], root().key)
    with pytest.raises(Corrupt):
        decode_root(data[:-3], root().key)


@pytest.mark.parametrize(
    "changes",
    [
        {"format": 2},
        {"position": 99},  # less than what a manifest covers
        {"position": 0, "manifests": []},
        {"layout": (4, 0)},
        {"layout": (4, 2)},
        {"manifests": list(reversed(root().manifests))},
        {"manifests": [root().manifests[0], root().manifests[0]]},
        {"manifests": [msgspec.structs.replace(root().manifests[0], version=0)]},
    ],
)
def test_a_root_that_contradicts_itself_is_refused(changes: dict[str, Any]) -> None:
    wrong = root(**changes)
    with pytest.raises(Corrupt):
        decode_root(wrong.encode(), wrong.key)


def test_a_root_under_the_key_of_another_one_is_refused() -> None:
    with pytest.raises(Corrupt, match="holds"):
        decode_root(root().encode(), root_key("c", 2, 100))
    assert parse_root_key(root().key) == ("c", 1, 100)
    assert parse_root_key("c/0/manifests/00000000000000000001.json") is None


async def test_the_newest_root_is_of_the_highest_epoch_and_then_of_the_highest_position() -> None:
    roots = RootStore(MemoryStore(lambda: 0.0))
    assert await roots.newest("c") is None
    for epoch, position in ((1, 10**11), (2, 100), (2, 2000), (1, 10**12)):
        await roots.create(root(epoch, position))
    found = await roots.newest("c")
    assert found is not None
    assert (found.epoch, found.position) == (2, 2000)
    assert len(await roots.keys("c")) == 4


async def test_a_newest_root_that_cannot_be_read_is_not_passed_over() -> None:
    objects = MemoryStore(lambda: 0.0)
    roots = RootStore(objects)
    await roots.create(root(1, 100))
    await objects.put(root_key("c", 1, 200), b"{}")
    with pytest.raises(Corrupt):
        await roots.newest("c")


async def test_a_root_is_created_once_and_never_by_another_content() -> None:
    roots = RootStore(MemoryStore(lambda: 0.0))
    await roots.create(root())
    await roots.create(root(written_by="another log service", created_s=9.0))
    found = await roots.newest("c")
    assert found is not None
    assert found.written_by == "test"
    with pytest.raises(Corrupt, match="other records"):
        await roots.create(root(manifests=root().manifests[:1]))
