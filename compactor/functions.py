"""Running functions: an output is brought in step with its inputs' manifests (docs/design/2026-11-21-functions.md).

1. Read what the output was made of last, and the inputs' newest manifests. When these are the same, it is in step.
2. Compute the content that the output should have, and read the content that it has.
3. Append the difference, on condition that the output still is made of what was read in step 1. When another process
   was faster, or a shard was compacted meanwhile, begin again.
"""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Sequence
from typing import Any, Final

import numpy as np
import orjson
import pyarrow as pa
from prometheus_client import Counter

from compactor.apply_log import AppliedLog, Superseded, apply_log
from compactor.cancellation import in_thread
from compactor.sources import Source, open_sources
from compactor.statistics import Content, Counted, Counts, record_counter, statistics
from shared.catalog.functions import OUTPUT_DIMENSION, RECORD_COUNTER, FunctionInput, Functions
from shared.catalog.model import Function
from shared.errors import Gone, StaleEpoch, StaleGeneration, Unavailable
from shared.log.append import AppendRequest
from shared.log.batch import build_batch, split_batch
from shared.log.jobs import FUNCTION, Jobs
from shared.log.log import Log
from shared.log.outputs import Outputs, ProvenanceChange, ProvenanceConflict
from shared.manifest.store import ManifestStore
from shared.objects.port import ObjectStore
from shared.process.telemetry import get_logger
from shared.records.indexing import Indexing
from shared.records.model import Op
from shared.segment.cache import SegmentCache
from shared.segment.segment_set import SegmentSet

log = get_logger(__name__)

RUNS: Final = Counter("polychrome_compactor_function_runs_total", "Runs of functions that brought an output in step.")

TRIES: Final = 16
"""Times that a run begins, at most: it begins again when others were faster, or its inputs moved on."""

WHOLE_LOG_BYTES: Final = 1 << 62
"""Bytes of an output's log that are applied at once: all of it, which is short."""


class FunctionRunner:
    """Runs functions. Any number of processes may run the same one at once: of those that start from the same content,
    one appends.
    """

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
        output = await self._outputs.output_of(collection)
        if output is not None:
            await self.run(output)

    async def run(self, output: str) -> None:
        """Runs the function of the collection `output` until that is in step. Raises Unavailable, Corrupt, Backoff,
        Gone.
        """
        for _ in range(TRIES):
            function = await self._functions.function_of(output)
            if function is None or not function.inputs:
                return
            before, epoch = await self._outputs.provenance(output)
            inputs = [found for input_id in function.inputs if (found := await self._functions.read_input(input_id))]
            provenance = {input_.id: input_.provenance for input_ in inputs}
            made: dict[str, Any] = orjson.loads(before) if before else {"run": 0, "basis": {}}
            if made["basis"] != provenance:
                made = {"run": made["run"] + 1, "basis": provenance}
                if not await self._make(output, function, inputs, ProvenanceChange(before, orjson.dumps(made), epoch)):
                    continue
                RUNS.inc()
            for input_ in inputs:
                run = f"{function.id}:{made['run']}"
                await self._outputs.note_run(input_.id, input_.epoch, output, run, input_.versions)
            return
        raise Unavailable(f"the inputs of {output} change faster than its function runs")

    async def _make(
        self, output: str, function: Function, inputs: Sequence[FunctionInput], change: ProvenanceChange
    ) -> bool:
        """Gives the output its content. False when something has moved on, and the run has to begin again."""
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
                return await self._outputs.set_provenance(output, change)
            batches = await in_thread(split_batch, batch, layout)
            request = AppendRequest(
                collection_id=output,
                request_id=uuid.uuid4().hex,
                batches=batches,
                dimension=OUTPUT_DIMENSION,
                generation=None,
                new_keys=kinds,
                provenance=change,
            )
            await self._log.append(request)
        except (Superseded, ProvenanceConflict, StaleGeneration, StaleEpoch) as error:
            log.info("function_restarted", output=output, reason=error.message)
            return False
        await self._jobs.mark_dirty((output, shard) for shard in batches)
        log.info("function_ran", output=output, function=function.function, operations=batch.num_rows)
        return True

    async def _content(self, function: Function, inputs: Sequence[FunctionInput]) -> Content:
        """The records that the output should hold."""
        manifests = [
            await self._manifests.load(input_.id, shard, pointer)
            for input_ in inputs
            for shard, pointer in input_.pointers.items()
            if pointer is not None
        ]
        rows = sum(manifest.rows for manifest in manifests)
        if function.function == RECORD_COUNTER:
            return record_counter(rows)
        async with self._counting:
            counts: list[Counts] = []
            for manifest in manifests:
                indexing = await self._indexing(manifest.collection)
                async with open_sources(self._cache, manifest.segments, indexing) as sources:
                    counts += [await in_thread(self._counted.live, source) for source in sources]
        return await in_thread(statistics, rows, counts)

    async def _indexing(self, collection: str) -> Indexing:
        """The indexing of a collection. Raises Gone."""
        [state] = await self._log.states([(collection, FUNCTION)])
        if state is None:
            raise Gone(f"collection {collection} was deleted")
        return Indexing.of(state.fixed)

    async def _held(self, output: str, shard: int) -> Content:
        """The records that a shard of the output holds now. Raises Superseded, Gone."""
        [state] = await self._log.states([(output, shard)])
        if state is None:
            raise Gone(f"collection {output} was deleted")
        manifest = await self._manifests.load(output, shard, state.pointer) if state.pointer else None
        refs = manifest.segments if manifest else []
        async with open_sources(self._cache, refs, Indexing.of(state.fixed)) as sources:
            if not state.uncompacted:
                return await in_thread(_held, sources, None)
            segments = SegmentSet([source.segment for source in sources], [source.dead for source in sources])
            applied = await apply_log(
                self._log, output, state, segments, state.dimension, WHOLE_LOG_BYTES, lambda: None, beyond_cut=True
            )
            if applied.damage is not None:
                raise applied.damage
            return await in_thread(_held, sources, applied)


def _held(sources: Sequence[Source], applied: AppliedLog | None) -> Content:
    """Metadata by id of the live records of these segments, and of the log after them."""
    tables = []
    for number, source in enumerate(sources):
        deleted = applied.deleted.get(number) if applied else None
        alive = source.without(deleted) if deleted else source
        tables.append(alive.live_records().select(["id", "metadata"]))
    if applied:
        tables.append(applied.tail.select(["id", "metadata"]))
    return {
        record_id: orjson.loads(text) if text else {}
        for table in tables
        for record_id, text in zip(table["id"].to_pylist(), table["metadata"].to_pylist(), strict=True)
    }


def _difference(current: Content, target: Content) -> tuple[pa.RecordBatch | None, list[tuple[str, str]]]:
    """Operations that turn the current content into the target, None when nothing is to do; and the (metadata key,
    value type) pairs that they bring along.
    """
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
