"""A stand-in for a compactor: manifests without segments, enough for what the log service looks at."""

from collections.abc import Sequence

from shared.catalog import Collection
from shared.cluster.placement import Layout
from shared.log.log import Log
from shared.log.rebuild import Rebuilds
from shared.log.state import Pointer
from shared.manifest.commits import CommitNumbers
from shared.manifest.model import Manifest, ParentRef, SegmentRef
from shared.manifest.store import ManifestStore
from shared.objects.port import ObjectStore


async def publish(
    objects: ObjectStore,
    collection: str,
    shard: int,
    covers: int,
    parent: Pointer | None,
    segments: Sequence[SegmentRef] = (),
    epoch: int = 0,
) -> Pointer:
    """Creates the next manifest; it is not committed yet."""
    manifest = Manifest(
        collection=collection,
        shard=shard,
        version=parent.version + 1 if parent else 1,
        parent=ParentRef(parent.version, parent.hash) if parent else None,
        covers=covers,
        dimension=2,
        segments=list(segments),
        rows=sum(segment.live for segment in segments),
        digest="0" * 32,
        written_by="test",
        created_s=0.0,
        epoch=epoch,
    )
    pointer = await ManifestStore(objects).create(manifest)
    assert pointer is not None
    return pointer


async def compact(
    log: Log, objects: ObjectStore, collection: str, shard: int = 0, covers: int | None = None
) -> Pointer:
    """Covers all that was written, whatever the cut is, or what is below the position `covers`."""
    state = (await log.read(collection, shard)).state
    await CommitNumbers(objects).leave(await log.draw_commit())
    pointer = await publish(objects, collection, shard, covers or state.head, state.pointer, epoch=state.epoch)
    assert await log.commit(collection, shard, state.pointer, pointer, state.epoch)
    return pointer


async def lay(rebuilds: Rebuilds, log: Log, objects: ObjectStore, collection: Collection, layout: Layout) -> None:
    """Gives a collection without records other shards."""
    assert await rebuilds.begin(collection.id, collection.epoch, collection.layout, layout) == layout
    [state] = await log.states([(collection.id, collection.layout.first)])
    assert state is not None
    await CommitNumbers(objects).leave(await log.draw_commit())
    starts = dict.fromkeys(collection.layout.numbers, state.head)
    pointers = {shard: await publish(objects, collection.id, shard, state.head, None) for shard in layout.numbers}
    assert await rebuilds.initialize(collection.id, collection.epoch, collection.layout, layout, starts, pointers)


async def switch(rebuilds: Rebuilds, log: Log, collection: Collection) -> None:
    """Ends what `lay` has begun."""
    [state] = await log.states([(collection.id, collection.layout.first)])
    assert state is not None
    assert await rebuilds.switch(collection.id, state.epoch, state.routing, state.head, {})
