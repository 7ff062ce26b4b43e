"""Log lines that cannot be written are dropped and counted, and nothing else happens."""

import errno
import io
import os

import pytest

from shared.process import telemetry
from shared.process.telemetry import LINES_LOST, LossyStream


class FullDisk(io.StringIO):
    """A stream on a disk that is full for some writes."""

    full = True

    def write(self, text: str) -> int:
        if self.full:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return super().write(text)


def _lost() -> float:
    return sum(
        sample.value for metric in LINES_LOST.collect() for sample in metric.samples if "created" not in sample.name
    )


def test_a_line_that_finds_no_room_is_dropped_and_counted_and_later_ones_are_written() -> None:
    target, before = FullDisk(), _lost()
    stream = LossyStream(target)
    stream.write("one\n")
    stream.write("two\nthree\n")
    target.full = False
    stream.write("four\n")
    assert target.getvalue() == "four\n"
    assert _lost() - before == 3


def test_no_logger_raises_on_a_full_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(telemetry._process, "stream", LossyStream(FullDisk()))
    telemetry.write_info("module", [{"event": "request"}])
