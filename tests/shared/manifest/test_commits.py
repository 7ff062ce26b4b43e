from __future__ import annotations

from shared.manifest.commits import CommitNumbers
from shared.objects.keys import COMMITS
from shared.objects.memory import MemoryStore


async def test_a_bucket_without_commits_has_number_0(objects: MemoryStore) -> None:
    assert await CommitNumbers(objects).newest() == 0


async def test_the_highest_number_is_the_newest_in_whatever_order_they_were_left(objects: MemoryStore) -> None:
    numbers = CommitNumbers(objects)
    for number in (9, 10, 2, 10):
        await numbers.leave(number)
    assert await numbers.newest() == 10


async def test_tidying_keeps_the_newest_number_alone(objects: MemoryStore) -> None:
    numbers = CommitNumbers(objects)
    for number in (7, 8, 100):
        await numbers.leave(number)
    assert await numbers.tidy() == 2
    assert [info.key async for info in objects.list(COMMITS)] == [f"commits/{100:020d}"]
    assert await numbers.tidy() == 0
    assert await numbers.newest() == 100


async def test_other_objects_are_no_numbers(objects: MemoryStore) -> None:
    await objects.put(f"{COMMITS}{5:020d}", b"5")
    await objects.put(f"{COMMITS}6", b"6")
    await objects.put(f"{COMMITS}{7:020d}x", b"7")
    assert await CommitNumbers(objects).newest() == 5
