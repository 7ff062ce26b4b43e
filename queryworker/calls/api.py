"""Serves the methods that frontends call (`shared.rpc.query_worker_methods`).

Calls that came together are sorted by shard; there is one currency check for all calls of a shard. Then queries that
differ in nothing but their vectors are one batch for a thread, a few queries with cheap filters are one, and every
other call is a batch of its own, so that a slow filter holds up no other call. What takes less than waking a thread is
answered inline, on the event loop.

Speculation. While the threads have nothing else to do, batches are answered from the view that the shard had a moment
ago, and the currency check is made meanwhile. When it finds nothing new, that view is current, and the answers are
right: none leaves before. Else they are dropped, and made anew.
"""

from __future__ import annotations

import asyncio
import functools
import time
from collections.abc import Coroutine, Mapping, Sequence
from typing import Any, Final

from queryworker.calls.delivery import Deliver, Delivery, ReadSource, Speculation, fail_all
from queryworker.calls.method import (
    CallOutcome,
    PendingCall,
    Request,
    ServedMethod,
    Worth,
    answer_batch,
    batch_responses,
    each_answer,
    each_response,
)
from queryworker.query import answers, search_source
from queryworker.query.answers import ReadContext
from queryworker.query.batches import batches
from queryworker.shards.registry import ShardRegistry
from queryworker.thread_pool import USUAL_COST_S, ThreadPool
from queryworker.view.read_view import ReadView
from queryworker.work_memory import ProcessMemory
from shared.errors import InvalidArgument
from shared.process import telemetry
from shared.records.selection import EVERYTHING
from shared.rpc import query_worker_methods as methods
from shared.rpc.messages import CountRequest, GetRequest, PrefetchRequest, Shard
from shared.rpc.server_call import Call, Serve

DECODED_ON_LOOP_BYTES_MAX: Final = 64 * 1024
"""Longer requests are decoded in a thread."""

INLINE_IDS_MAX: Final = 32
"""Number of records that are looked up in less time than a thread takes to wake up. They are in mapped files: of those
that the system has put out of memory, a few pages for each record are read from the disk meanwhile.
"""

ROW_S: Final = 2.5e-6
"""Seconds for each row of a caller's estimate, in which a graph's beam gets a row further."""

INLINE_BYTES_MAX: Final = 128 * 1024
"""Calls that came together are answered inline while their answers have about this many bytes in total."""


class QueryWorkerApi:
    """The functions that `shared.rpc.server.RpcServer` gives calls to. Everything runs on the event loop but what is
    handed to the threads: decoding long requests, and answering batches.
    """

    def __init__(self, shards: ShardRegistry, threads: ThreadPool, worker: str, memory: ProcessMemory) -> None:
        """`worker` is the name of this worker, for explanations; `memory` is what answers and work on them may take."""
        self._worth = Worth(memory)
        self._shards = shards
        self._worker = worker
        self._threads = threads
        self._delivery = Delivery(threads, shards.failed)
        self._tasks: set[asyncio.Task[None]] = set()

    def methods(self) -> Mapping[str, Serve]:
        """The functions by the names of their methods."""
        return dict(
            [
                self._serves(each_response(methods.COUNT, answers.count_answer, is_inline=_selects_everything)),
                self._serves(each_response(methods.GET, answers.get_answer, is_inline=_selects_few_ids)),
                self._serves(batch_responses(methods.QUERY, answers.query_answers, batches)),
                self._serves(each_answer(methods.PREFETCH, _prefetched, is_inline=_always)),
                self._serves(each_answer(methods.SEARCH, search_source.search_answer)),
                self._serves(each_response(methods.SEARCH_NEAREST, search_source.nearest_answer)),
                self._serves(each_response(methods.SEARCH_FREQUENCIES, search_source.frequencies_answer)),
                self._serves(each_response(methods.SEARCH_ORDERED, search_source.ordered_answer)),
                self._serves(each_response(methods.SEARCH_TALLY, search_source.tally_answer)),
            ]
        )

    async def close(self) -> None:
        """Give up the calls that wait for a currency check or for decoding."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._delivery.close()

    def _serves(self, method: ServedMethod[Request]) -> tuple[str, Serve]:
        return method.name, functools.partial(self._serve, method)

    def _serve(self, method: ServedMethod[Request], calls: Sequence[Call]) -> None:
        by_shard: dict[Shard, list[PendingCall[Request]]] = {}
        for call in calls:
            if len(call.payload) > DECODED_ON_LOOP_BYTES_MAX:
                self._start(self._serve_large(method, call))
                continue
            try:
                request = method.decode(call.payload)
            except InvalidArgument as error:
                call.fail(error)
            else:
                by_shard.setdefault(request.shard, []).append(PendingCall(call, request))
        for shard, pending in by_shard.items():
            self._start(self._answer(method, shard, pending))

    def _start(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)  # the loop holds tasks weakly
        task.add_done_callback(self._tasks.discard)

    async def _serve_large(self, method: ServedMethod[Request], call: Call) -> None:
        try:
            request = await self._threads.run_for(call.tenant, method.decode, call.payload)
        except Exception as error:
            call.fail(error)
        else:
            await self._answer(method, request.shard, [PendingCall(call, request)])

    async def _answer(
        self, method: ServedMethod[Request], shard: Shard, pending: Sequence[PendingCall[Request]]
    ) -> None:
        """Answer calls of one shard, with one currency check for all of them."""
        telemetry.request_id.set(pending[0].call.request_id)  # log lines of the check name one of the requests
        began_s = time.perf_counter()
        inline = [each for each in pending if method.is_inline(each.request)]
        others = [each for each in pending if not method.is_inline(each.request)] if inline else pending
        speculation = self._speculate(method, shard, others) if others and self._threads.idle else None
        try:
            view = await self._shards.read_view(shard)
        except BaseException as error:
            if speculation is not None:
                speculation.drop()
            fail_all(_calls(pending), error)
            if not isinstance(error, Exception):
                raise
            return
        context = ReadContext(view, self._worker, time.perf_counter() - began_s)
        too_long = self._answer_inline(method, context, inline)
        if speculation is not None and speculation.view is view:
            speculation.confirm()
        elif others:
            if speculation is not None:
                speculation.drop()
            self._submit(method, context, others, self._to(shard, view))
        if too_long:
            self._submit(method, context, too_long, self._to(shard, view))

    def _to(self, shard: Shard, view: ReadView) -> Deliver:
        """The delivery of what was made from this view of the shard."""
        return functools.partial(self._delivery.deliver, ReadSource(shard, view))

    def _speculate(
        self, method: ServedMethod[Request], shard: Shard, pending: Sequence[PendingCall[Request]]
    ) -> Speculation | None:
        """Begin to answer calls from the view that the shard has, if it may well be current."""
        view = self._shards.unchecked_view(shard)
        if view is None:
            return None
        speculation = Speculation(view, self._to(shard, view))
        self._submit(method, ReadContext(view, self._worker, 0.0), pending, speculation.deliver, speculation)
        return speculation

    def _answer_inline(
        self, method: ServedMethod[Request], context: ReadContext, pending: Sequence[PendingCall[Request]]
    ) -> list[PendingCall[Request]]:
        """Answer the calls on the loop; the calls that are left over because their answers are too long for that."""
        too_long: list[PendingCall[Request]] = []
        bytes_left = INLINE_BYTES_MAX
        for each in pending:
            outcomes = answer_batch(method, context._replace(bytes_max=bytes_left), [each], self._worth)
            if any(outcome.is_too_long for outcome in outcomes):
                too_long.append(each)
            else:
                self._to(each.request.shard, context.view)([each.call], outcomes, None)
                bytes_left = max(0, bytes_left - sum(len(outcome.answer) for outcome in outcomes))
        return too_long

    def _submit(
        self,
        method: ServedMethod[Request],
        context: ReadContext,
        pending: Sequence[PendingCall[Request]],
        deliver: Deliver,
        speculation: Speculation | None = None,
    ) -> None:
        """Have the threads answer the calls, batch by batch; when that cannot be done, all of them fail."""
        worth = self._worth if speculation is None else self._worth._replace(is_dropped=speculation.is_dropped)
        try:
            for numbers in method.batches([each.request for each in pending]):
                batch = [pending[number] for number in numbers]
                done = functools.partial(deliver, _calls(batch))
                work = functools.partial(_answer_unless_dropped, method, context, batch, worth)
                self._threads.submit(done, work, batch[0].call.tenant, _cost_s(batch))
        except Exception as error:
            fail_all(_calls(pending), error)


def _answer_unless_dropped(
    method: ServedMethod[Request],
    context: ReadContext,
    batch: Sequence[PendingCall[Request]],
    worth: Worth,
) -> list[CallOutcome]:
    if worth.is_dropped is not None and worth.is_dropped():
        return []
    return answer_batch(method, context, batch, worth)


def _cost_s(batch: Sequence[PendingCall[Request]]) -> float:
    """About how long the batch takes in a thread, by what its callers estimate."""
    return USUAL_COST_S + ROW_S * sum(pending.call.cost for pending in batch)


def _calls(pending: Sequence[PendingCall[Request]]) -> list[Call]:
    return [each.call for each in pending]


def _prefetched(_context: ReadContext, _request: PrefetchRequest) -> bytes:
    """The answer to a prefetch, whose purpose is fulfilled: the shard has a view now."""
    return b""


def _selects_everything(request: CountRequest) -> bool:
    """Whether a count reads no row."""
    return request.selection == EVERYTHING


def _selects_few_ids(request: GetRequest) -> bool:
    ids = request.selection.ids
    return ids is not None and len(ids) <= INLINE_IDS_MAX and request.selection.where is None


def _always(_request: PrefetchRequest) -> bool:
    return True
