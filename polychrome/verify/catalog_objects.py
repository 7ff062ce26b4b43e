"""Proving the objects in the bucket that are of no shard: snapshots of the catalog, its journal, and roots."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from polychrome.verify.model import CollectionNames, Finding, Ledger, name_in
from shared.catalog.image_model import CatalogImage
from shared.catalog.journal_entry import decode_entry
from shared.catalog.snapshot_form import check_snapshot
from shared.errors import Corrupt
from shared.manifest.roots import Root, decode_root
from shared.objects.port import ObjectNotFound, ObjectStore


async def prove_snapshots(objects: ObjectStore, keys: Sequence[str], ledger: Ledger) -> None:
    """Notes what is wrong with these snapshots, which are all; the newest is the one that counts. Raises
    Unavailable.
    """
    newest = max(keys, default="")
    for key in sorted(keys, reverse=True):  # of a collection that was renamed the newest name counts
        try:
            data = await objects.get(key)
            ledger.counts["snapshots"] += 1
            ledger.read(len(data))
            image = await asyncio.to_thread(check_snapshot, data)
            ledger.call(_names_in(image))
        except ObjectNotFound:
            continue  # replaced by newer ones since it was listed
        except Corrupt as error:
            ledger.add([Finding.of(key, error.message, current=key == newest)])


def _names_in(image: CatalogImage) -> dict[str, CollectionNames]:
    databases = {each.key: (each.tenant, each.name) for each in image.databases}
    named = [(each, name_in(each.row)) for each in image.collections if each.database_key in databases]
    return {each.id: CollectionNames(*databases[each.database_key], name) for each, name in named if name is not None}


async def prove_journal(objects: ObjectStore, keys: Sequence[str], ledger: Ledger) -> None:
    """Notes what is wrong with these entries of the catalog's journal. Raises Unavailable."""
    for key in sorted(keys):
        try:
            data = await objects.get(key)
            ledger.counts["journal entries"] += 1
            ledger.read(len(data))
            decode_entry(key, data)
        except ObjectNotFound:
            continue  # a snapshot has reached it since it was listed
        except Corrupt as error:
            ledger.add([Finding.of(key, error.message)])


async def prove_roots(objects: ObjectStore, keys: Sequence[str], collection: str, ledger: Ledger) -> Root | None:
    """Notes what is wrong with a collection's roots. The newest one that can be read; None when there is none. Raises
    Unavailable.
    """
    newest: Root | None = None
    damaged: list[tuple[str, str]] = []
    for key in sorted(keys):
        try:
            data = await objects.get(key)
            ledger.counts["roots"] += 1
            ledger.read(len(data))
            newest = decode_root(data, key)
        except ObjectNotFound:
            continue  # collected since it was listed
        except Corrupt as error:
            damaged.append((key, error.message))
    last = newest.key if newest is not None else ""
    ledger.add(Finding.of(key, what, current=key > last, collection=collection) for key, what in damaged)
    return newest
