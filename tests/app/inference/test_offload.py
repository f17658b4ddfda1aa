"""Tasks in threads: turns, refusals, and requests that end before their task begins."""

import asyncio
import gc
import threading
import weakref
from collections.abc import Callable, Coroutine
from functools import partial, wraps
from typing import Any

import numpy as np
import pytest

from app.errors import InvalidInput, Overloaded
from app.inference.admission import MAX_SLOWDOWN
from app.inference.offload import INLINE_ELEMENTS, LONG_SECONDS, MAX_MEMORY, Offload
from app.maths.arrays import Doubles
from tests.processes import PATIENCE, until


def on_a_loop(test: Callable[..., Coroutine[Any, Any, None]]) -> Callable[..., None]:
    """A test that runs on an event loop of its own."""

    @wraps(test)
    def run(*arguments: Any, **named: Any) -> None:
        asyncio.run(test(*arguments, **named))

    return run


class Held:
    """An Offload of one thread, which runs nothing before `release`, and the names of the tasks in their order."""

    def __init__(self, wait_seconds: float = 100) -> None:
        self.offload, self.done = Offload(1, wait_seconds), list[str]()
        self._released = threading.Event()
        self.first = self.submit("first", "holder", self._wait)

    def _wait(self) -> None:
        assert self._released.wait(PATIENCE)

    def submit(
        self, name: str, caller: str, function: Callable[[], Any] = lambda: None, seconds: float = 1.0, **options: bool
    ) -> "asyncio.Task[Any]":
        def run() -> Any:
            self.done.append(name)
            return function()

        return asyncio.ensure_future(self.offload.run(caller, seconds, run, **options))

    def set_free(self) -> None:
        self._released.set()

    async def release(self, *tasks: "asyncio.Task[Any]") -> list[Any]:
        self.set_free()
        results = await asyncio.gather(self.first, *tasks, return_exceptions=True)
        self.offload.close()
        return results[1:]


async def settle() -> None:
    """Let every new task come to where it waits."""
    for _ in range(5):
        await asyncio.sleep(0)


@on_a_loop
async def test_callers_take_turns() -> None:
    held = Held()
    await settle()
    tasks = [held.submit(f"a{number}", "a") for number in range(4)]
    await settle()
    tasks += [held.submit("b0", "b"), held.submit("c0", "c"), held.submit("b1", "b")]
    await settle()
    await held.release(*tasks)
    assert held.done == ["first", "a0", "b0", "c0", "a1", "b1", "a2", "a3"]


@on_a_loop
async def test_a_thread_has_its_next_task_without_the_event_loop() -> None:
    held = Held()
    await settle()
    tasks = [held.submit(name, "a", seconds=0.01) for name in ("next", "later")]
    await settle()
    held.set_free()
    assert until(lambda: held.done == ["first", "next"])  # the event loop is busy here
    assert held.done == ["first", "next"]
    await held.release(*tasks)
    assert held.done == ["first", "next", "later"]


@on_a_loop
async def test_a_task_gives_what_its_function_returns_or_raises() -> None:
    held = Held()

    def fail() -> None:
        raise InvalidInput("wrong")

    def stop() -> None:
        raise StopIteration

    def leave() -> None:
        raise SystemExit

    results = await held.release(
        held.submit("one", "a", lambda: 1), *(held.submit("fails", "a", function) for function in (fail, stop, leave))
    )
    assert results[0] == 1
    assert [type(result) for result in results[1:]] == [InvalidInput, RuntimeError, RuntimeError]


@on_a_loop
async def test_who_would_wait_too_long_is_refused_and_others_are_not() -> None:
    held = Held(wait_seconds=5)
    await settle()
    tasks = []
    for number in range(8):
        tasks.append(held.submit(f"a{number}", "a", seconds=2.0))
        await settle()
    assert held.offload.refused == 5
    assert held.offload.predicted_wait("a") == 6
    assert held.offload.predicted_wait("b") == 2  # one of the other caller's
    tasks.append(held.submit("b0", "b"))
    tasks.append(held.submit("a8", "a", is_first=False))  # of a request that was accepted before
    results = await held.release(*tasks)
    assert [isinstance(result, Overloaded) for result in results] == [False] * 3 + [True] * 5 + [False] * 2
    assert held.done == ["first", "a0", "b0", "a1", "a2", "a8"]


@on_a_loop
async def test_the_task_of_a_request_that_ended_is_not_run() -> None:
    held = Held()
    await settle()
    tasks = [held.submit(f"a{number}", "a") for number in range(3)] + [held.submit("b0", "b")]
    await settle()
    for task in tasks[1:]:
        task.cancel()
    await settle()
    assert held.offload.dropped == 3
    assert held.offload.predicted_wait("b") == 1
    results = await held.release(*tasks)
    assert held.done == ["first", "a0"]
    assert all(isinstance(result, asyncio.CancelledError) for result in results[1:])


@on_a_loop
async def test_a_running_task_ends_though_its_request_has_ended() -> None:
    held = Held()
    await settle()
    held.first.cancel()
    await settle()
    assert await held.release(held.submit("a0", "a", lambda: 2)) == [2]


@on_a_loop
async def test_slow_tasks_raise_the_predicted_wait_and_quick_ones_do_not_lower_it() -> None:
    offload = Offload(1)
    await offload.run("a", 1e-9, lambda: None)
    slow = offload._slowdown
    assert 1 < slow <= 1 + MAX_SLOWDOWN / 10
    await offload.run("a", 1e9, lambda: None)
    assert 1 <= offload._slowdown < slow
    offload.close()


@on_a_loop
async def test_tasks_that_take_much_memory_run_one_after_the_other_and_small_ones_beside_them() -> None:
    offload, holds, running = Offload(3), threading.Event(), list[str]()

    def task(name: str) -> Callable[[], None]:
        def run() -> None:
            running.append(name)
            assert holds.wait(PATIENCE)

        return run

    memory = {"large": MAX_MEMORY, "larger": 2 * MAX_MEMORY, "small": 0, "half": MAX_MEMORY // 2}
    tasks = [asyncio.ensure_future(offload.run(name, 0.1, task(name), memory=size)) for name, size in memory.items()]
    await settle()
    assert [it.memory for it in offload._running] == [MAX_MEMORY, 0]
    holds.set()
    await asyncio.gather(*tasks)
    assert sorted(running) == sorted(memory)
    offload.close()


@on_a_loop
async def test_long_tasks_leave_a_thread_to_the_others() -> None:
    offload, holds, running = Offload(2, wait_seconds=2), threading.Event(), list[str]()
    films = [asyncio.ensure_future(offload.run("a", 7.0, lambda: holds.wait(PATIENCE))) for _ in range(1)]
    await settle()
    films += [asyncio.ensure_future(offload.run("a", 7.0, lambda: running.append("film"), is_first=False))]
    await settle()
    assert offload.predicted_wait("b") == LONG_SECONDS / 2
    offload.check("b")
    with pytest.raises(Overloaded):
        offload.check("a")
    await offload.run("b", 0.1, lambda: running.append("image"))
    assert running == ["image"]
    holds.set()
    await asyncio.gather(*films)
    assert running == ["image", "film"]
    offload.close()


@on_a_loop
async def test_what_takes_much_memory_is_not_passed_by_what_takes_some() -> None:
    offload, holds, order = Offload(2), threading.Event(), list[str]()
    first = asyncio.ensure_future(offload.run("a", 0.1, lambda: holds.wait(PATIENCE), memory=1))
    await settle()
    tasks = [
        asyncio.ensure_future(offload.run(caller, 0.1, lambda name=caller: order.append(name), memory=memory))
        for caller, memory in (("large", MAX_MEMORY), ("b", 1), ("c", 1))
    ]
    await settle()
    holds.set()
    await asyncio.gather(first, *tasks)
    assert order[0] == "large"
    offload.close()


@on_a_loop
async def test_the_error_of_a_request_that_has_ended_keeps_nothing() -> None:
    offload, begun, holds = Offload(1), threading.Event(), threading.Event()
    body = np.zeros(1)
    held = weakref.ref(body)

    def fail(body: Doubles) -> None:
        begun.set()
        assert holds.wait(PATIENCE)
        raise InvalidInput("wrong")

    gc.collect()
    gc.disable()
    try:
        task = asyncio.ensure_future(offload.run("a", 0.1, partial(fail, body)))
        del body
        assert await asyncio.to_thread(begun.wait, PATIENCE)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        del task
        holds.set()
        await offload.run("a", 0.1, lambda: None)
        assert held() is None
    finally:
        gc.enable()
    offload.close()


@pytest.mark.parametrize("threads", [1, 3])
@on_a_loop
async def test_as_many_run_at_once_as_there_are_threads(threads: int) -> None:
    offload, together = Offload(threads), threading.Barrier(threads)
    waits = (offload.run(str(number), 0.1, lambda: together.wait(PATIENCE)) for number in range(threads))
    assert sorted(await asyncio.gather(*waits)) == list(range(threads))
    offload.close()


@on_a_loop
async def test_what_an_admitted_request_computes_takes_turns_and_is_not_refused() -> None:
    held = Held(wait_seconds=1)
    await settle()
    tasks = [held.submit("decode", "a", seconds=50.0)]
    await settle()
    with pytest.raises(Overloaded):
        held.offload.check("a")
    held.offload.check("b")
    for caller in "aab":
        tasks.append(
            asyncio.ensure_future(held.offload.computed(caller, INLINE_ELEMENTS + 1, held.done.append, caller))
        )
        await settle()
    assert await held.offload.computed("b", INLINE_ELEMENTS, lambda: "at once") == "at once"
    assert await held.release(*tasks) == [None] * 4
    assert held.done == ["first", "b", "decode", "a", "a"]  # one long task at a time, and a short one meanwhile
    held.offload.check("b")
