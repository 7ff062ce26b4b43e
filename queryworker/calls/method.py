"""The serving of a method that frontends call (`shared.rpc.query_worker_methods`)."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Generic, NamedTuple, TypeAlias, TypeVar

import msgspec

from queryworker.query.answers import ReadContext
from queryworker.query.get import AnswerTooLongError
from queryworker.work_memory import ProcessMemory, TenantMemory
from shared.errors import NotRepeated
from shared.process.work import Work
from shared.rpc.method import Method, RawMethod, Response
from shared.rpc.query_worker_methods import ShardRequest
from shared.rpc.server_call import Call

Request = TypeVar("Request", bound=ShardRequest)

Answer: TypeAlias = bytes | Iterator[bytes]
"""An encoded answer: as a whole, or the chunks that together are the answer."""


def each_alone(requests: Sequence[object]) -> Sequence[Sequence[int]]:
    """Batches of one request each."""
    return [[number] for number in range(len(requests))]


def never(_request: object) -> bool:
    """No request is answered inline."""
    return False


class ServedMethod(Generic[Request]):
    """The way in which calls of one method are served.

    `answer` gives the answers to a batch of requests of one shard, in their order. `batches` says which requests are
    answered as one batch, by their numbers; each is in one batch. `is_inline` says which are answered on the event
    loop, because that takes less than waking a thread.
    """

    def __init__(
        self,
        method: RawMethod[Request],
        answer: Callable[[ReadContext, Sequence[Request]], Sequence[Answer]],
        *,
        batches: Callable[[Sequence[Request]], Sequence[Sequence[int]]] = each_alone,
        is_inline: Callable[[Request], bool] = never,
    ) -> None:
        self.name = method.name
        self.decode = method.decode_request
        self.answer = answer
        self.batches = batches
        self.is_inline = is_inline


def each_answer(
    method: RawMethod[Request],
    answer: Callable[[ReadContext, Request], Answer],
    *,
    is_inline: Callable[[Request], bool] = never,
) -> ServedMethod[Request]:
    """A method of which every request is answered alone, with bytes."""
    return ServedMethod(
        method, lambda context, requests: [answer(context, request) for request in requests], is_inline=is_inline
    )


def each_response(
    method: Method[Request, Response],
    respond: Callable[[ReadContext, Request], Response | Answer],
    *,
    is_inline: Callable[[Request], bool] = never,
) -> ServedMethod[Request]:
    """A method of which every request is answered alone, with a response, or with what `respond` has encoded itself."""
    return each_answer(
        method, lambda context, request: _encoded(method, respond(context, request)), is_inline=is_inline
    )


def batch_responses(
    method: Method[Request, Response],
    respond: Callable[[ReadContext, Sequence[Request]], Sequence[Response | Answer]],
    batches: Callable[[Sequence[Request]], Sequence[Sequence[int]]],
) -> ServedMethod[Request]:
    """A method of which batches of requests are answered together, each as `each_response` does."""
    return ServedMethod(
        method,
        lambda context, requests: [_encoded(method, found) for found in respond(context, requests)],
        batches=batches,
    )


def _encoded(method: Method[Request, Response], found: Response | Answer) -> Answer:
    return method.encode_response(found) if isinstance(found, msgspec.Struct) else found


class PendingCall(NamedTuple, Generic[Request]):
    """A call that is to be answered, and its request."""

    call: Call
    request: Request


class CallOutcome(NamedTuple):
    """The outcome of a call: an answer, or an error. `rest` makes the chunks that follow when `answer` is the first of
    several.
    """

    call: Call
    answer: bytes
    error: Exception | None = None
    rest: Iterator[bytes] | None = None

    @property
    def is_too_long(self) -> bool:
        """Whether the answer was not made because it has more bytes than the context allows."""
        return isinstance(self.error, AnswerTooLongError)


class Worth(NamedTuple):
    """Until when work on calls is worth going on with: while some caller waits, and not `is_dropped()`. It may take
    `memory`.
    """

    memory: ProcessMemory
    is_dropped: Callable[[], bool] | None = None

    def work(self, calls: Sequence[Call]) -> Work:
        """The work on these calls of one tenant."""
        is_dropped = self.is_dropped
        if len(calls) == 1 and is_dropped is None:
            deadline_s, given_up = calls[0].deadline_s, calls[0].is_done
        else:
            deadline_s = max(call.deadline_s for call in calls)

            def given_up() -> bool:
                return (is_dropped is not None and is_dropped()) or all(call.done for call in calls)

        return Work(deadline_s, given_up, TenantMemory(self.memory, calls[0].tenant))


def answer_batch(
    method: ServedMethod[Request], context: ReadContext, batch: Sequence[PendingCall[Request]], worth: Worth
) -> list[CallOutcome]:
    """The outcomes of those calls of a batch that a caller still waits for. When the batch fails, each call is answered
    alone: one of them may be at fault.
    """
    batch = [pending for pending in batch if not pending.call.done]
    if not batch:
        return []

    def answer() -> list[CallOutcome]:
        answers = method.answer(context, [pending.request for pending in batch])
        return [_succeeded(pending.call, answer) for pending, answer in zip(batch, answers, strict=True)]

    work = worth.work([pending.call for pending in batch])
    try:
        outcomes = work.do(answer)
    except Exception as error:
        if len(batch) == 1:
            return [CallOutcome(batch[0].call, b"", _told(error))]
        return [outcome for pending in batch for outcome in answer_batch(method, context, [pending], worth)]
    _share_scanned(work, batch)
    return outcomes


def _share_scanned(work: Work, batch: Sequence[PendingCall[Request]]) -> None:
    """Tells the callers what was scanned for their batch, each an equal share."""
    rows, size = work.rows_scanned // len(batch), work.bytes_scanned // len(batch)
    for pending in batch:
        pending.call.scanned(rows, size)


def _told(error: Exception) -> Exception:
    if isinstance(error, MemoryError):
        return NotRepeated("The request ran a query worker out of memory; ask for less")
    return error


def _succeeded(call: Call, answer: Answer) -> CallOutcome:
    return CallOutcome(call, answer) if isinstance(answer, bytes) else CallOutcome(call, next(answer), rest=answer)
