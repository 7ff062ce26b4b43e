"""The methods that frontends call (`shared.rpc.messages`).

Calls that came together are sorted by shard; each shard is made current once for all of them. Then plain queries that
differ in nothing but their vectors are one job for a thread, a few queries with light filters are one, and every other
call is a job of its own, so that a slow filter holds nobody up. What takes less than handing it to a thread is answered
at once.

While threads have nothing else to do, jobs begin on what the shard was a moment ago, and the log is asked meanwhile.
When nothing has changed, that is what the shard is, and the answers are right: none leaves before. Else they are
thrown away, and the jobs begin anew.
"""

from __future__ import annotations

import asyncio
import functools
import time
from collections.abc import Callable, Coroutine, Iterator, Mapping, Sequence
from typing import Any, Final, NamedTuple, Protocol, TypeVar

import msgspec

from queryworker.query import answers
from queryworker.query import search_source as searching
from queryworker.query.answers import ReadContext
from queryworker.query.batches import batches
from queryworker.query.get import AnswerTooLongError
from queryworker.shards.registry import ShardRegistry
from queryworker.thread_pool import ThreadPool
from queryworker.view.read_view import ReadView
from shared.errors import InvalidArgument
from shared.process import telemetry
from shared.records.selection import EVERYTHING
from shared.rpc.messages import CountRequest, GetRequest, PrefetchRequest, QueryRequest, Shard
from shared.rpc.search_messages import (
    FrequenciesRequest,
    NearestRequest,
    OrderedRequest,
    SearchRequest,
    TallyRequest,
)
from shared.rpc.server_call import Call, Serve

DECODED_ON_LOOP_MAX: Final = 64 * 1024
"""Longer requests are decoded in a thread."""

LIGHT_IDS_MAX: Final = 32
"""So many records are looked up in less time than a thread takes to wake up. They are in mapped files: of those that
the system has put out of memory, a few pages for each record are read from the disk meanwhile.
"""

LIGHT_BYTES_MAX: Final = 128 * 1024
"""Answers to calls that came together are given without a thread up to this length in total, roughly."""


class _OfShard(Protocol):
    @property
    def shard(self) -> Shard: ...


Request = TypeVar("Request", bound=_OfShard)
Work = Callable[[ReadContext, Sequence[Any]], Sequence[bytes | Iterator[bytes]]]
"""Gives the answer to each request, as a whole or in chunks."""


class _Asked(NamedTuple):
    """A call and what it says."""

    call: Call
    request: Any


class _Method(NamedTuple):
    """How calls of one method are decoded, answered on the loop when they are light, and divided into jobs."""

    decode: Callable[[memoryview], Any]
    is_light: Callable[[Any], bool]
    jobs: Callable[[Sequence[Any]], Sequence[Sequence[int]]]
    work: Work


class Api:
    """Serves `RpcServer`."""

    def __init__(self, shards: ShardRegistry, threads: ThreadPool, worker: str) -> None:
        """`worker`: this one's name, for explanations."""
        self._shards = shards
        self._worker = worker
        self._threads = threads
        self._tasks: set[asyncio.Task[None]] = set()

    def methods(self) -> Mapping[str, Serve]:
        count = _Method(_decoder(CountRequest), _reads_no_row, _one_each, _each(answers.count_answer))
        get = _Method(_decoder(GetRequest), _names_few_rows, _one_each, _each(answers.get_answer))
        query = _Method(_decoder(QueryRequest), _never, batches, answers.query_answers)
        prefetch = _Method(_decoder(PrefetchRequest), _always, _one_each, _each(lambda _reading, _request: b""))
        methods = {
            "count": count,
            "get": get,
            "query": query,
            "prefetch": prefetch,
            "search": _alone(SearchRequest, searching.search_answer),
            "search.nearest": _alone(NearestRequest, searching.nearest_answer),
            "search.frequencies": _alone(FrequenciesRequest, searching.frequencies_answer),
            "search.ordered": _alone(OrderedRequest, searching.ordered_answer),
            "search.tally": _alone(TallyRequest, searching.tally_answer),
        }
        return {name: functools.partial(self._serve, method) for name, method in methods.items()}

    async def close(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _serve(self, method: _Method, calls: Sequence[Call]) -> None:
        by_shard: dict[Shard, list[_Asked]] = {}
        for call in calls:
            if len(call.payload) > DECODED_ON_LOOP_MAX:
                self._start(self._serve_large(method, call))
                continue
            try:
                request = method.decode(call.payload)
            except InvalidArgument as error:
                call.fail(error)
            else:
                by_shard.setdefault(request.shard, []).append(_Asked(call, request))
        for shard, asked in by_shard.items():
            self._start(self._answer(method, shard, asked))

    def _start(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)  # the loop holds tasks weakly
        task.add_done_callback(self._tasks.discard)

    async def _serve_large(self, method: _Method, call: Call) -> None:
        try:
            request = await self._threads.run(method.decode, call.payload)
        except Exception as error:
            call.fail(error)
        else:
            await self._answer(method, request.shard, [_Asked(call, request)])

    async def _answer(self, method: _Method, shard: Shard, asked: Sequence[_Asked]) -> None:
        telemetry.request_id.set(asked[0].call.request_id)  # the others' are in nobody's way
        began_s = time.perf_counter()
        light = [one for one in asked if method.is_light(one.request)]
        heavy = [one for one in asked if not method.is_light(one.request)] if light else asked
        likely = self._shards.unchecked_view(shard) if heavy and self._threads.idle else None
        early = _Early(self._hand_over)
        if likely is not None:
            self._begin(method, likely, 0.0, heavy, early.finish)
        try:
            view = await self._shards.read_view(shard)
        except BaseException as error:
            _fail(asked, error)
            if not isinstance(error, Exception):
                raise
            return
        waited_s = time.perf_counter() - began_s
        too_long = self._answer_light(method, ReadContext(view, self._worker, waited_s), light)
        if view is likely:
            early.release()
        elif heavy:
            self._begin(method, view, waited_s, heavy, self._hand_over)
        if too_long:
            self._begin(method, view, waited_s, too_long, self._hand_over)

    def _answer_light(self, method: _Method, reading: ReadContext, asked: Sequence[_Asked]) -> list[_Asked]:
        """Those left over whose answers are too long for the loop."""
        too_long: list[_Asked] = []
        bytes_left = LIGHT_BYTES_MAX
        for one in asked:
            outcomes = _perform(method.work, reading._replace(bytes_max=bytes_left), [one])
            if any(isinstance(outcome.error, AnswerTooLongError) for outcome in outcomes):
                too_long.append(one)
            else:
                self._hand_over([one], outcomes, None)
                bytes_left = max(0, bytes_left - sum(len(outcome.answer) for outcome in outcomes))
        return too_long

    def _begin(
        self, method: _Method, view: ReadView, waited_s: float, asked: Sequence[_Asked], finish: _Finish
    ) -> None:
        reading = ReadContext(view, self._worker, waited_s)
        for numbers in method.jobs([one.request for one in asked]):
            job = [asked[number] for number in numbers]
            self._threads.submit(functools.partial(finish, job), functools.partial(_perform, method.work, reading, job))

    def _hand_over(self, asked: Sequence[_Asked], outcomes: list[_Outcome] | None, error: BaseException | None) -> None:
        if error is not None:
            _fail(asked, error)
        for outcome in outcomes or ():
            if outcome.error is not None:
                outcome.call.fail(outcome.error)
            elif outcome.rest is None:
                outcome.call.answer(outcome.answer)
            else:
                self._send_chunk(outcome.call, outcome.answer, outcome.rest)

    def _send_chunk(self, call: Call, chunk: bytes, rest: Iterator[bytes]) -> None:
        """The chunk after this one is made when this one was sent: a slow caller keeps no thread busy."""
        call.chunk(chunk, functools.partial(self._make_chunk, call, rest))

    def _make_chunk(self, call: Call, rest: Iterator[bytes]) -> None:
        self._threads.submit(functools.partial(self._chunk_made, call, rest), functools.partial(next, rest, None))

    def _chunk_made(self, call: Call, rest: Iterator[bytes], chunk: bytes | None, error: BaseException | None) -> None:
        if error is not None:
            call.fail(error)
        elif chunk is None:
            call.answer(b"")
        else:
            self._send_chunk(call, chunk, rest)


class _Outcome(NamedTuple):
    """What becomes of a call. `rest` makes the chunks that follow when `answer` is the first of several."""

    call: Call
    answer: bytes
    error: Exception | None = None
    rest: Iterator[bytes] | None = None

    @staticmethod
    def of(call: Call, answer: bytes | Iterator[bytes]) -> _Outcome:
        return _Outcome(call, answer) if isinstance(answer, bytes) else _Outcome(call, next(answer), rest=answer)


def _perform(work: Work, reading: ReadContext, asked: Sequence[_Asked]) -> list[_Outcome]:
    """Answers to the calls that somebody still waits for. What fails together is tried alone: one may be at fault."""
    asked = [one for one in asked if not one.call.done]
    if not asked:
        return []
    try:
        found = work(reading, [one.request for one in asked])
        return [_Outcome.of(one.call, answer) for one, answer in zip(asked, found, strict=True)]
    except Exception as error:
        if len(asked) == 1:
            return [_Outcome(asked[0].call, b"", error)]
        return [outcome for one in asked for outcome in _perform(work, reading, [one])]


_Finish = Callable[[Sequence[_Asked], list[_Outcome] | None, BaseException | None], None]


class _Early:
    """Holds back what became of jobs until it is known to be right."""

    def __init__(self, hand_over: _Finish) -> None:
        self._hand_over = hand_over
        self._held: list[tuple[Sequence[_Asked], list[_Outcome] | None, BaseException | None]] = []
        self._right = False

    def finish(self, asked: Sequence[_Asked], outcomes: list[_Outcome] | None, error: BaseException | None) -> None:
        if self._right:
            self._hand_over(asked, outcomes, error)
        else:
            self._held.append((asked, outcomes, error))

    def release(self) -> None:
        self._right = True
        for ended in self._held:
            self._hand_over(*ended)


def _fail(asked: Sequence[_Asked], error: BaseException) -> None:
    for one in asked:
        one.call.fail(error)


def _decoder(of: type[Request]) -> Callable[[memoryview], Request]:
    decoder = msgspec.msgpack.Decoder(of)

    def decode(payload: memoryview) -> Request:
        try:
            return decoder.decode(payload)
        except msgspec.MsgspecError as error:
            raise InvalidArgument(f"not a {of.__name__}: {error}") from error

    return decode


def _alone(of: type[Request], answer: Callable[[ReadContext, Any], bytes]) -> _Method:
    """Each request is a job of its own."""
    return _Method(_decoder(of), _never, _one_each, _each(answer))


def _each(answer: Callable[[ReadContext, Any], bytes | Iterator[bytes]]) -> Work:
    return lambda reading, requests: [answer(reading, request) for request in requests]


def _one_each(requests: Sequence[Any]) -> Sequence[Sequence[int]]:
    return [[number] for number in range(len(requests))]


def _reads_no_row(request: CountRequest) -> bool:
    """A thread would cost more than the answer."""
    return request.selection == EVERYTHING


def _names_few_rows(request: GetRequest) -> bool:
    ids = request.selection.ids
    return ids is not None and len(ids) <= LIGHT_IDS_MAX and request.selection.where is None


def _always(_request: Any) -> bool:
    return True


def _never(_request: Any) -> bool:
    return False
