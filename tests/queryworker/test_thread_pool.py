import asyncio
import threading
import time

import pytest

from queryworker.thread_pool import ThreadPool


async def test_results_and_errors_go_to_their_callers() -> None:
    threads = ThreadPool(3, "test")

    def work(number: int) -> int:
        if number % 5 == 4:
            raise ValueError(number)
        return number * number

    outcomes = await asyncio.gather(*(threads.run(work, number) for number in range(200)), return_exceptions=True)
    for number, outcome in enumerate(outcomes):
        if number % 5 == 4:
            assert isinstance(outcome, ValueError)
            assert outcome.args == (number,)
        else:
            assert outcome == number * number
    await threads.close()


async def test_as_many_run_at_once_as_there_are_threads() -> None:
    threads = ThreadPool(2, "test")
    meeting = threading.Barrier(2)
    async with asyncio.timeout(10):
        await asyncio.gather(threads.run(meeting.wait), threads.run(meeting.wait))
    await threads.close()


async def test_a_job_that_is_cancelled_before_it_begins_never_does_and_harms_no_other() -> None:
    threads = ThreadPool(1, "test")
    release = threading.Event()
    begun: list[str] = []
    first = asyncio.ensure_future(threads.run(release.wait))
    second = asyncio.ensure_future(threads.run(begun.append, "second"))
    third = asyncio.ensure_future(threads.run(begun.append, "third"))
    await asyncio.sleep(0)
    second.cancel()
    await asyncio.sleep(0)
    release.set()
    await asyncio.gather(first, third)
    assert begun == ["third"]
    await threads.close()


async def test_a_job_that_is_cancelled_while_it_runs_keeps_no_other_from_its_result() -> None:
    threads = ThreadPool(1, "test")
    running, release = threading.Event(), threading.Event()

    def work() -> None:
        running.set()
        release.wait()

    cancelled = asyncio.ensure_future(threads.run(work))
    await asyncio.to_thread(running.wait)
    cancelled.cancel()
    release.set()
    assert await threads.run(lambda: 7) == 7
    with pytest.raises(asyncio.CancelledError):
        await cancelled
    await threads.close()


async def test_a_result_that_is_not_taken_strands_none_behind_it() -> None:
    told: list[object] = []
    asyncio.get_running_loop().set_exception_handler(lambda _loop, context: told.append(context["exception"]))
    threads = ThreadPool(1, "test")
    answered = asyncio.Event()
    failure = ValueError("not wanted")

    def refuse(_result: object, _error: BaseException | None) -> None:
        raise failure

    for finish in (refuse, lambda _result, _error: answered.set()):
        threads.submit(finish, int)
    await threads.close()  # both are ready before the loop looks
    await asyncio.wait_for(answered.wait(), 5)
    assert told == [failure]
    assert threads.idle


async def test_closing_waits_for_what_has_begun() -> None:
    threads = ThreadPool(1, "test")
    running, ended = threading.Event(), []

    def work() -> None:
        running.set()
        time.sleep(0.02)
        ended.append(True)

    task = asyncio.ensure_future(threads.run(work))
    await asyncio.to_thread(running.wait)
    await threads.close()
    assert ended
    await task


async def test_a_closed_pool_refuses_jobs_that_no_thread_would_ever_take() -> None:
    threads = ThreadPool(1, "test")
    await threads.close()
    with pytest.raises(RuntimeError, match="closed"):
        async with asyncio.timeout(5):
            await threads.run(int)


async def test_a_tenant_never_has_all_threads_and_turns_go_by_what_jobs_took() -> None:
    """The greedy one says that its jobs cost nothing."""
    threads = ThreadPool(1, "test", spare=True)
    release = threading.Event()
    order: list[str] = []

    def job(tenant: str, takes_s: float) -> None:
        order.append(tenant)
        release.wait()
        time.sleep(takes_s)

    greedy = [asyncio.ensure_future(threads.run_for("greedy", job, "greedy", 0.05)) for _ in range(3)]
    async with asyncio.timeout(10):
        while not order:  # noqa: ASYNC110
            await asyncio.sleep(0)
        other = asyncio.ensure_future(threads.run_for("modest", order.append, "modest"))
        await other
        assert order == ["greedy", "modest"], "in the spare thread, which takes none of the greedy one"
        release.set()
        await greedy[0]
        modest = [asyncio.ensure_future(threads.run_for("modest", order.append, "modest")) for _ in range(5)]
        await asyncio.gather(*greedy, *modest)
    assert order.count("greedy") == 3
    await threads.close()


async def test_all_jobs_of_a_tenant_are_done_though_wakes_go_to_threads_that_may_not_take_them() -> None:
    threads = ThreadPool(1, "test", spare=True)
    async with asyncio.timeout(30):
        for _ in range(50):
            done = await asyncio.gather(*(threads.run_for(f"t{n % 2}", lambda n=n: n) for n in range(20)))  # type: ignore[misc]
            assert done == list(range(20))
    await threads.close()
