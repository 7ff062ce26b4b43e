"""`explain`: what a read says about itself."""

from __future__ import annotations

from pathlib import Path

import msgspec

from shared.records.model import Op
from shared.records.selection import Selection
from shared.records.where import DocumentContains
from shared.redis.keys import Keys
from tests.queryworker.truth import get_request, query_request
from tests.queryworker.world import open_world
from tests.redis_server import RedisServer
from tests.shared.memtable.model import Operation


def _adds(first: int, count: int) -> list[Operation]:
    return [
        Operation(Op.ADD, f"r{i}", (float(i), 0.0, 0.0, 0.0), f"text {i % 4}", {"n": i})
        for i in range(first, first + count)
    ]


async def test_a_read_explains_itself_only_when_asked(valkey_server: RedisServer, keys: Keys, tmp_path: Path) -> None:
    where = Selection(where=DocumentContains("text 3"))
    async with open_world(valkey_server.url, keys, tmp_path) as world:
        await world.write(_adds(0, 40))
        await world.compact()
        await world.load_newest_manifests()
        head = await world.write([*_adds(40, 8), Operation(Op.DELETE, "r7")])
        plain = query_request(world, [(1.0, 0.0, 0.0, 0.0)], 1, where)
        assert (await world.worker.query(plain)).explanation is None
        answer = await world.worker.query(msgspec.structs.replace(plain, explain=True))
        assert answer.explanation is not None
        told = answer.explanation
        assert (told.worker, told.shard, told.position, told.segments, told.tail_rows) == ("worker", 0, head, 1, 8)
        segment, tail = told.parts
        assert segment.part.startswith("segment ")
        assert (segment.rows, segment.living, segment.matching, segment.undecided) == (40, 39, 39, True)
        assert (segment.beams, segment.scans) == ([], 1)
        assert segment.examined == 39
        assert 1 <= segment.documents_read < 39
        assert (tail.part, tail.rows, tail.living) == ("tail", 8, 8)
        assert list(told.milliseconds) == ["currency", "filter", "search", "assemble"]
        assert min(told.milliseconds.values()) >= 0
        page = await world.worker.get(msgspec.structs.replace(get_request(world, where, limit=2), explain=True))
        assert page.columns.ids == ["r3", "r11"]
        assert page.explanation is not None
        assert [part.part for part in page.explanation.parts] == [segment.part, "tail"]
