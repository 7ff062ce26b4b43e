"""An authenticator over key records in memory, and headers as a server gives them."""

from __future__ import annotations

import asyncio
from typing import Any

from multidict import CIMultiDict

from frontend.access.authenticator import Authenticator
from frontend.access.credentials import Headers
from shared.errors import Unavailable
from shared.process.clock import SystemClock
from shared.tenancy.api_keys import KeyRecord, encode_record
from shared.tenancy.principal import Principal
from tests.shared.tenancy.making import NOW_S


class SteppedClock(SystemClock):
    """Goes on when it is told to, and when somebody sleeps."""

    def __init__(self) -> None:
        self.now_s = NOW_S
        self.slept: list[float] = []

    def now(self) -> float:
        return self.now_s

    def monotonic(self) -> float:
        return self.now_s

    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now_s += seconds
        await asyncio.sleep(0)


class MemoryRecords:
    """Key records by id. `away`: nothing answers."""

    def __init__(self) -> None:
        self.records: dict[str, bytes] = {}
        self.word = "w0"
        self.away = False
        self.looked_up: list[str] = []
        self.used: dict[str, int] = {}

    def put(self, record: KeyRecord) -> None:
        self.records[record.id] = encode_record(record)
        self.word = f"w{int(self.word[1:]) + 1}"

    async def look_up(self, key_id: str) -> bytes | None:
        self._check()
        self.looked_up.append(key_id)
        return self.records.get(key_id)

    async def generation(self) -> str:
        self._check()
        return self.word

    async def note_used(self, key_ids: list[str], minute: int) -> None:
        self.used |= dict.fromkeys(key_ids, minute)

    def _check(self) -> None:
        if self.away:
            raise Unavailable("away")


def headers(**values: str) -> CIMultiDict[str]:
    return CIMultiDict((name.replace("_", "-"), value) for name, value in values.items())


def bearer(text: str) -> CIMultiDict[str]:
    return headers(authorization=f"Bearer {text}")


class Asked(Authenticator):
    """An authenticator that is asked as the server asks it."""

    async def __call__(self, headers: Headers, remote: str | None) -> Principal:
        return self.known(headers) or await super().__call__(headers, remote)


async def opened(records: MemoryRecords, clock: SteppedClock, **options: Any) -> Authenticator:
    authenticator = Asked(records, clock, **options)
    await authenticator.look()
    return authenticator
