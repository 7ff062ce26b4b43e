"""Settling what dead compactors left: a manifest that was created and not committed is completed or given up."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from shared.errors import Corrupt
from shared.log.state import Pointer
from shared.manifest.digests import verify_digest
from shared.manifest.store import ManifestStore, verify_present
from shared.objects.port import ObjectStore
from shared.process.telemetry import get_logger

log = get_logger(__name__)

Commit = Callable[[str, int, Pointer | None, Pointer, int], Awaitable[bool]]
"""`Log.commit` of (collection, shard, expected pointer, new pointer, epoch): replaces the expected pointer by the new
one in a state of this epoch. Returns whether the pointer is the new one now.
"""


async def settle(
    objects: ObjectStore, commit: Commit, collection: str, shard: int, current: Pointer | None, epoch: int
) -> Pointer | int | None:
    """Completes or gives up the manifests that dead compactors left after `current` (None: the shard has none yet).
    `epoch` is the state's.

    Returns the pointer that is now committed, when there was a manifest to complete; or the version that the next
    manifest takes, when there was none; or None when the pointer has moved on meanwhile.
    """
    version = current.version + 1 if current else 1
    while await ManifestStore(objects).exists(collection, shard, version):
        try:
            return await complete(objects, commit, collection, shard, current, version, epoch)
        except Corrupt as error:
            log.error("manifest_given_up", collection=collection, shard=shard, version=version, message=error.message)  # noqa: TRY400 (no stack: data is at fault)
        version += 1
    return version


async def complete(
    objects: ObjectStore,
    commit: Commit,
    collection: str,
    shard: int,
    current: Pointer | None,
    version: int,
    epoch: int,
) -> Pointer | None:
    """Commits a manifest that exists and was never pointed to.

    1. Read it: its parent must be `current` itself, hash and all, and its epoch the state's. What was begun before a
       restoration may contain what the restoration reported as lost, and clients have acted on that since.
    2. Every file of its segments must be there in full length (checksums are verified when the files are fetched).
    3. It must prove against its records: no pointer has its hash.
    4. Commit it.

    Returns the pointer that is now committed, or None when there is nothing to complete (no such manifest, or the
    pointer has moved on meanwhile: `current` was old). Raises Corrupt when the manifest must not be committed.
    """
    found = await ManifestStore(objects).find(collection, shard, version)
    if found is None:
        return None
    manifest, pointer = found
    parent = (manifest.parent.version, manifest.parent.hash) if manifest.parent else None
    if parent != ((current.version, current.hash) if current else None):
        raise Corrupt(f"manifest {manifest.key} exists and does not continue the committed one")
    if manifest.epoch != epoch:
        raise Corrupt(f"manifest {manifest.key} was begun in epoch {manifest.epoch}; this is epoch {epoch}")
    if current is not None and manifest.covers < current.covers:
        raise Corrupt(f"manifest {manifest.key} covers less than the one before it")
    for segment in manifest.segments:
        await verify_present(objects, segment.info)
    await verify_digest(objects, manifest)
    return pointer if await commit(collection, shard, current, pointer, epoch) else None
