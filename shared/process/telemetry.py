"""Logs: one JSON object per line on standard error, ours and the libraries' alike.

Metrics are plain `prometheus_client` objects, made in the module that observes them and named `polychrome_...`;
`shared.process.service` serves them.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Sequence
from contextvars import ContextVar
from typing import Any, Final, TextIO, cast

import orjson
import structlog
from prometheus_client import Counter
from structlog.typing import EventDict, FilteringBoundLogger, Processor, WrappedLogger

request_id: Final[ContextVar[str]] = ContextVar("request_id", default="")
"""The request that this task works for; travels with every call between processes."""

tenant: Final[ContextVar[str]] = ContextVar("tenant", default="")
"""The tenant that this task works for, empty when that is nobody; travels with every call between processes."""


def get_logger(name: str) -> FilteringBoundLogger:
    """The logger of a module; `name` shows as `module`."""
    return cast("FilteringBoundLogger", structlog.get_logger(module=name))


LINES_LOST: Final = Counter(
    "polychrome_log_lines_lost_total", "Log lines that could not be written, because the disk was full, say."
)


class LossyStream:
    """The stream `target`, or, without one, what standard error is at each write, for log lines. What cannot be written
    is counted and dropped: a full disk of logs must break neither a request nor a process.
    """

    def __init__(self, target: TextIO | None = None) -> None:
        self._target = target

    def write(self, text: str) -> None:
        target = self._target or sys.stderr
        try:
            target.write(text)
            target.flush()
        except (OSError, ValueError):  # ValueError: the stream was closed
            LINES_LOST.inc(max(1, text.count("\n")))

    def flush(self) -> None:
        """Does nothing: `write` flushes."""


class _Process:
    """The fields of the process in every line, once `configure` was called."""

    role = ""
    id = ""
    level = logging.INFO
    stream = LossyStream()


_process: Final = _Process()


def configure(role: str, process_id: str, level: str) -> None:
    """Set up logging for the whole process; called once, by `shared.process.service.main`."""
    number = logging.getLevelNamesMapping()[level.upper()]
    _process.role, _process.id, _process.level = role, process_id, number
    stream = _process.stream = LossyStream(sys.stderr)

    def add_process(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
        event["role"] = role
        event["process"] = process_id
        if request := request_id.get():
            event.setdefault("request_id", request)
        return event

    common: list[Processor] = [
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True, key="time"),
        add_process,
        structlog.processors.StackInfoRenderer(),
        structlog.processors.format_exc_info,
    ]
    structlog.configure(
        processors=[*common, structlog.processors.JSONRenderer(serializer=_to_json)],
        wrapper_class=structlog.make_filtering_bound_logger(number),
        logger_factory=structlog.WriteLoggerFactory(cast("TextIO", stream)),
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(stream)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[structlog.stdlib.add_logger_name, *common],
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                structlog.processors.JSONRenderer(serializer=_to_json),
            ],
        )
    )
    # The libraries' own debug output is never wanted; what they find worth an «info» is not either.
    logging.basicConfig(handlers=[handler], level=max(number, logging.WARNING), force=True)


def write_info(module: str, events: Sequence[EventDict]) -> None:
    """Lines of level «info» that come in bundles: one write for all. Each has `event` and `time`, a datetime."""
    if _process.level > logging.INFO:
        return
    common = {"module": module, "level": "info", "role": _process.role, "process": _process.id}
    _process.stream.write("".join(_to_json({**event, **common}) + "\n" for event in events))


def _to_json(event: Any, **_options: Any) -> str:
    return orjson.dumps(event, default=repr, option=orjson.OPT_NON_STR_KEYS | orjson.OPT_UTC_Z).decode()
