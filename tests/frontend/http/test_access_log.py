import asyncio
from types import SimpleNamespace
from typing import Any

import orjson
import pytest

from frontend.http import access_log
from frontend.http.access_log import AccessLog
from shared.process import telemetry
from shared.tenancy.api_keys import draw_key

REQUEST: Any = SimpleNamespace(path="/api/v2/version", body_bytes=0)


def lines(capsys: pytest.CaptureFixture[str]) -> list[dict[str, Any]]:
    return [orjson.loads(line) for line in capsys.readouterr().err.splitlines()]


async def test_requests_are_written_together_with_their_ids(capsys: pytest.CaptureFixture[str]) -> None:
    log = AccessLog("all")
    for number in range(3):
        telemetry.request_id.set(f"r{number}")
        log.note(REQUEST, "GET", "/api/v2/version", 200 + number, 0.0012345)
    assert lines(capsys) == []
    log.flush()
    written = lines(capsys)
    assert [line["request_id"] for line in written] == ["r0", "r1", "r2"]
    assert [line["status"] for line in written] == [200, 201, 202]
    assert written[0]["ms"] == 1.234
    assert written[0]["time"].endswith("Z")
    assert {line["module"] for line in written} == {"frontend.access"}
    log.flush()
    assert lines(capsys) == []


async def test_a_line_does_not_wait_for_others_for_long(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(access_log, "GATHER_S", 0.001)
    log = AccessLog("all")
    async with asyncio.timeout(10):
        for _ in range(2):
            log.note(REQUEST, "GET", "/api/v2/version", 200, 0.001)
            while not lines(capsys):  # noqa: ASYNC110 (the timer tells nobody)
                await asyncio.sleep(0.001)


async def test_many_lines_do_not_wait_at_all(capsys: pytest.CaptureFixture[str]) -> None:
    log = AccessLog("all")
    for _ in range(access_log.LINES_MAX + 1):
        log.note(REQUEST, "GET", "/api/v2/version", 200, 0.001)
    assert len(lines(capsys)) == access_log.LINES_MAX
    log.flush()


@pytest.mark.parametrize(("wanted", "kept"), [("all", [200, 404, 503]), ("failed", [503]), ("off", [])])
async def test_which_requests_are_kept(wanted: str, kept: list[int], capsys: pytest.CaptureFixture[str]) -> None:
    log = AccessLog(wanted)
    for status in (200, 404, 503):
        log.note(REQUEST, "GET", "/api/v2/version", status, 0.001)
    log.flush()
    assert [line["status"] for line in lines(capsys)] == kept


async def test_a_key_in_a_path_is_not_written_down(capsys: pytest.CaptureFixture[str]) -> None:
    log, key = AccessLog("all"), draw_key()
    request: Any = SimpleNamespace(path=f"/polychrome/v1/keys/{key.text}/revoke", body_bytes=0)
    log.note(request, "POST", "/polychrome/v1/keys/{key_id}/revoke", 404, 0.001)
    log.flush()
    assert lines(capsys)[0]["path"] == f"/polychrome/v1/keys/pck_{key.id}[cut]/revoke"
