"""Erasures as frontends see them: requests under way in the control records, receipts in the bucket."""

from __future__ import annotations

import re
from typing import Final

from shared.errors import NotFound
from shared.objects.keys import ERASURES, receipt_key
from shared.objects.port import ObjectNotFound, ObjectStore
from shared.tenancy.control_model import ControlKind
from shared.tenancy.control_records import ControlRecords
from shared.tenancy.erasures import Erasure, Receipt, decode_erasure, decode_receipt

_ID: Final = re.compile("[0-9a-f]{32}", re.ASCII)


def missing_erasure(erasure_id: str) -> NotFound:
    """The 404 of an erasure that is not there."""
    return NotFound(f"Erasure [{erasure_id}] does not exist")


class ErasureStore:
    """The erasures of a cluster. Everything raises Unavailable while the bucket or Redis is away."""

    def __init__(self, records: ControlRecords, objects: ObjectStore) -> None:
        self._records = records
        self._objects = objects

    async def create(self, erasure: Erasure) -> bool:
        """Makes a request; whether the log service knows it already."""
        return (await self._records.create(ControlKind.ERASURES, erasure.id, erasure.encode())).live

    async def get(self, erasure_id: str) -> Erasure | Receipt:
        """The request, or the receipt once there is one. Raises NotFound, Corrupt."""
        if not _ID.fullmatch(erasure_id):
            raise missing_erasure(erasure_id)
        try:
            return decode_receipt(await self._objects.get(receipt_key(erasure_id)), receipt_key(erasure_id))
        except ObjectNotFound:
            pass
        found = await self._records.read(ControlKind.ERASURES, erasure_id)
        if found is None or found.content is None:
            raise missing_erasure(erasure_id)
        return decode_erasure(found.content)

    async def all(self) -> list[Erasure | Receipt]:
        """All requests without a receipt, then all receipts. Raises Corrupt."""
        receipts: dict[str, Receipt] = {}
        async for info in self._objects.list(ERASURES):
            receipt = decode_receipt(await self._objects.get(info.key), info.key)
            receipts[receipt.id] = receipt
        requests = [
            decode_erasure(record.content)
            async for record in self._records.all(ControlKind.ERASURES)
            if record.content is not None and record.name not in receipts
        ]
        return [*requests, *receipts.values()]
