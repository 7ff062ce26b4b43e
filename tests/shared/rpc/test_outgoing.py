"""Whose turn it is to send, and what slow callers may cost a server."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from shared.rpc.outgoing import SLICE_BYTES, UNLIMITED, LongAnswer, SendQueue, UnsentBytes


class Sent:
    """A call that remembers what was sent of its answer."""

    def __init__(self, name: str, sent: list[tuple[str, int]], queue: SendQueue | None = None) -> None:
        self.name = name
        self.done = False
        self._sent = sent
        self._queue = queue
        self.answer: LongAnswer | None = None

    def send_slice(self, payload: memoryview, *, is_last: bool) -> None:
        self._sent.append((self.name, len(payload)))
        self.done = is_last
        if is_last and self._queue is not None and self.answer is not None:
            self._queue.forget(self.answer)

    def cut(self) -> None:
        self._sent.append((self.name, -1))


def _answers(
    sent: list[tuple[str, int]], queue: SendQueue, lengths: Sequence[int], credit: int = UNLIMITED
) -> list[LongAnswer]:
    answers = []
    for name, length in zip("abcdef", lengths, strict=False):
        sender = Sent(name, sent, queue)
        sender.answer = LongAnswer(sender, credit)
        queue.hold(sender.answer, bytes(length), None)
        answers.append(sender.answer)
    return answers


def _always() -> bool:
    return True


def _so_often(times: int) -> Callable[[], bool]:
    left = iter(range(times))
    return lambda: next(left, None) is not None


def test_answers_take_turns_slice_by_slice() -> None:
    sent: list[tuple[str, int]] = []
    queue = SendQueue(UnsentBytes())
    _answers(sent, queue, [3 * SLICE_BYTES, 5, SLICE_BYTES + 1])
    queue.send(_always)
    assert sent == [("a", SLICE_BYTES), ("b", 5), ("c", SLICE_BYTES), ("a", SLICE_BYTES), ("c", 1), ("a", SLICE_BYTES)]
    assert len(queue) == 0


def test_nothing_is_sent_that_the_connection_does_not_take_and_turns_are_kept() -> None:
    sent: list[tuple[str, int]] = []
    queue = SendQueue(UnsentBytes())
    _answers(sent, queue, [2 * SLICE_BYTES, 2 * SLICE_BYTES])
    for _ in range(4):
        queue.send(_so_often(1))
    assert [name for name, _ in sent] == ["a", "b", "a", "b"]


def test_an_answer_without_credit_waits_and_is_in_nobodys_way() -> None:
    sent: list[tuple[str, int]] = []
    queue = SendQueue(UnsentBytes())
    (slow,) = _answers(sent, queue, [1000], credit=10)
    _answers(sent, queue, [1000])[0].sender.name = "other"  # type: ignore[attr-defined]
    queue.send(_always)
    assert sent == [("a", 10), ("other", 1000)]
    queue.grant(slow, 990)
    queue.send(_always)
    assert sent[-1] == ("a", 990)


def test_the_next_piece_is_made_when_the_one_before_was_sent() -> None:
    sent: list[tuple[str, int]] = []
    queue = SendQueue(UnsentBytes())
    answer = LongAnswer(Sent("a", sent), 15)
    wanted: list[int] = []

    def make_next() -> None:
        wanted.append(len(sent))
        queue.hold(answer, bytes(10), make_next if len(wanted) < 3 else None)

    queue.hold(answer, bytes(10), make_next)
    queue.send(_always)
    assert (sent, wanted) == ([("a", 10), ("a", 5)], [1])
    queue.grant(answer, 100)
    queue.send(_always)
    assert (sum(size for _, size in sent), len(wanted)) == (40, 3)


def test_an_end_without_bytes_needs_no_credit() -> None:
    sent: list[tuple[str, int]] = []
    queue = SendQueue(UnsentBytes())
    _answers(sent, queue, [0], credit=0)
    queue.send(_always)
    assert sent == [("a", 0)]


def test_when_too_much_is_unsent_the_answers_that_stood_still_for_longest_are_cut() -> None:
    sent: list[tuple[str, int]] = []
    unsent = UnsentBytes(bytes_max=250)
    queue = SendQueue(unsent)
    first, _second = _answers(sent, queue, [100, 100], credit=1)
    queue.grant(first, 1)
    queue.send(_always)
    sent.clear()
    unsent.moved(first)
    third = LongAnswer(Sent("third", sent), 0)
    queue.hold(third, bytes(100), None)
    assert sent == [("b", -1)]
    assert unsent.total == 200


def test_an_answer_larger_than_all_may_be_together_is_kept_when_it_is_the_only_one() -> None:
    sent: list[tuple[str, int]] = []
    unsent = UnsentBytes(bytes_max=10)
    queue = SendQueue(unsent)
    _answers(sent, queue, [1000], credit=0)
    assert (sent, unsent.total) == ([], 1000)
