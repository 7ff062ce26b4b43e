"""Runs a function: brings its output in step with its inputs' manifests (docs/design/2026-11-21-functions.md)."""

from __future__ import annotations

import asyncio
import contextlib
import uuid
from collections.abc import AsyncIterator, Sequence
from typing import Any, Final

import numpy as np
import orjson
import pyarrow as pa
from prometheus_client import Counter as Metric

from compactor.build import Source
from compactor.cancellation import in_thread
from compactor.compaction import open_sources
from compactor.fold import Fold, Superseded, fold
from compactor.statistics import Content, Counted, Counts, record_counter, statistics
from shared.catalog.functions import OUTPUT_DIMENSION, RECORD_COUNTER, FunctionInput, Functions
from shared.catalog.model import Function
from shared.errors import Gone, StaleGeneration, Unavailable
from shared.log.append import AppendRequest
from shared.log.batch import build_batch, split_batch
from shared.log.jobs import FUNCTION, Jobs
from shared.log.log import Log
from shared.log.outputs import Made, Outputs, Remade
from shared.manifest.model import Manifest
from shared.manifest.store import ManifestStore
from shared.objects.port import ObjectStore
from shared.process.telemetry import get_logger
from shared.records.model import Op
from shared.segment.cache import SegmentCache
from shared.segment.segment_set import SegmentSet

log = get_logger(__name__)

RUNS: Final = Metric("polychrome_compactor_function_runs", "Runs of functions that brought an output in step.")

TRIES: Final = 16
"""How often a run begins again because others were faster, or its inputs moved on."""
EVERYTHING: Final = 1 << 62


class FunctionRunner:
    """Any number of them may run one function at once: only one of them appends what follows from the same."""

    def __init__(
        self, functions: Functions, outputs: Outputs, shard_log: Log, jobs: Jobs, objects: ObjectStore,
        cache: SegmentCache,
    ) -> None:  # fmt: skip
        self._functions = functions
        self._outputs = outputs
        self._log = shard_log
        self._jobs = jobs
        self._manifests = ManifestStore(objects)
        self._cache = cache
        self._counted = Counted()
        self._counting = asyncio.Lock()

    async def follow(self, collection: str) -> None:
        """After a compaction of the collection: runs the function that is attached to it. Raises as `run`."""
        output = await self._outputs.of(collection)
        if output is not None:
            await self.run(output)

    async def run(self, output: str) -> None:
        """Until the output is in step. Raises Unavailable, Corrupt, Backoff, Gone."""
        for _ in range(TRIES):
            function = await self._functions.function_of(output)
            if function is None or not function.inputs:
                return
            before = await self._outputs.made(output)
            inputs = [found for given in function.inputs if (found := await self._functions.read_input(given))]
            basis = {one.id: one.basis for one in inputs}
            made: dict[str, Any] = orjson.loads(before) if before else {"run": 0, "basis": {}}
            if made["basis"] != basis:
                made = {"run": made["run"] + 1, "basis": basis}
                if not await self._make(output, function, inputs, Made(before, orjson.dumps(made))):
                    continue
                RUNS.inc()
            for one in inputs:
                await self._outputs.ran(one.id, output, f"{function.id}:{made['run']}", one.versions)
            return
        raise Unavailable(f"the inputs of {output} change faster than its function runs")

    async def _make(self, output: str, function: Function, inputs: Sequence[FunctionInput], made: Made) -> bool:
        """Gives the output its content. False: something has moved on, begin again."""
        try:
            target = await self._content(function, inputs)
            [state] = await self._log.states([(output, FUNCTION)])
            if state is None or state.deleted:
                raise Gone(f"collection {output} was deleted")
            layout = state.routing.layout
            current: Content = {}
            for shard in layout.numbers:
                current |= await self._held(output, shard)
            batch, kinds = await in_thread(_difference, current, target)
            if batch is None:
                return await self._outputs.set_made(output, made)
            parts = await in_thread(split_batch, batch, layout)
            request = AppendRequest(
                collection_id=output,
                request_id=uuid.uuid4().hex,
                batches=parts,
                dimension=OUTPUT_DIMENSION,
                generation=None,
                new_keys=kinds,
                made=made,
            )
            await self._log.append(request)
        except (Superseded, Remade, StaleGeneration) as error:
            log.info("a function begins again", output=output, reason=error.message)
            return False
        await self._jobs.mark_dirty((output, shard) for shard in parts)
        log.info("function ran", output=output, function=function.function, operations=batch.num_rows)
        return True

    async def _content(self, function: Function, inputs: Sequence[FunctionInput]) -> Content:
        manifests = [
            await self._manifests.load(one.id, shard, pointer)
            for one in inputs
            for shard, pointer in one.pointers.items()
            if pointer is not None
        ]
        rows = sum(manifest.rows for manifest in manifests)
        if function.function == RECORD_COUNTER:
            return record_counter(rows)
        async with self._counting:
            parts: list[Counts] = []
            for manifest in manifests:
                async with self._opened(manifest) as sources:
                    parts += [await in_thread(self._counted.live, source) for source in sources]
        return await in_thread(statistics, rows, parts)

    async def _held(self, output: str, shard: int) -> Content:
        """What a shard of the output holds now. Raises Superseded, Gone."""
        [state] = await self._log.states([(output, shard)])
        if state is None:
            raise Gone(f"collection {output} was deleted")
        manifest = await self._manifests.load(output, shard, state.pointer) if state.pointer else None
        async with self._opened(manifest) as sources:
            if not state.uncompacted:
                return await in_thread(_held, sources, None)
            stack = SegmentSet([source.segment for source in sources], [source.dead for source in sources])
            folded = await fold(
                self._log, output, shard, state.pointer, stack, state.dimension, EVERYTHING, lambda: None
            )
            return await in_thread(_held, sources, folded)

    @contextlib.asynccontextmanager
    async def _opened(self, manifest: Manifest | None) -> AsyncIterator[list[Source]]:
        async with contextlib.AsyncExitStack() as stack:
            refs = manifest.segments if manifest else []
            folders = [await stack.enter_async_context(self._cache.hold(ref.info)) for ref in refs]
            yield await in_thread(open_sources, refs, folders)


def _held(sources: Sequence[Source], folded: Fold | None) -> Content:
    tables = []
    for number, source in enumerate(sources):
        mask = source.live_mask()
        if folded and number in folded.killed:
            mask[np.fromiter(folded.killed[number], np.int64)] = False
        tables.append(source.segment.records.select(["id", "metadata"]).filter(pa.array(mask)))
    if folded:
        tables.append(folded.tail.select(["id", "metadata"]))
    return {
        record_id: orjson.loads(text) if text else {}
        for table in tables
        for record_id, text in zip(table["id"].to_pylist(), table["metadata"].to_pylist(), strict=True)
    }


def _difference(current: Content, target: Content) -> tuple[pa.RecordBatch | None, list[tuple[str, str]]]:
    """Operations that make the one of the other, and the (key, type) pairs they bring along."""
    patches = {
        record_id: dict.fromkeys(current.get(record_id, {})) | metadata
        for record_id, metadata in target.items()
        if current.get(record_id) != metadata
    }
    gone = [record_id for record_id in current if record_id not in target]
    if not patches and not gone:
        return None, []
    batch = build_batch(
        np.array([Op.UPSERT] * len(patches) + [Op.DELETE] * len(gone), np.uint8),
        [*patches, *gone],
        np.zeros((len(patches), OUTPUT_DIMENSION), np.float32),
        np.arange(len(patches)),
        metadatas=[*map(orjson.dumps, patches.values()), *[None] * len(gone)],
    )
    kinds = {
        (key, "int" if type(value) is int else "string")
        for patch in patches.values()
        for key, value in patch.items()
        if value is not None
    }
    return batch, sorted(kinds)
