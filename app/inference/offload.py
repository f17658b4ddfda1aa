"""Runs long computations beside the graphs: what requests send is decoded, values are drawn, responses are written."""

import asyncio
import math
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar, cast

from app.errors import Overloaded
from app.inference.admission import LATEST_BATCH_WEIGHT, MAX_SLOWDOWN

Result = TypeVar("Result")

INLINE_ELEMENTS = 16_384
"""Maximum array elements computed on the event loop: a few tenths of a millisecond, less than a thread would cost."""
_SECONDS_PER_ELEMENT, _BYTES_PER_ELEMENT = 2e-8, 8
"""Estimates for array elements that are drawn, or written as PNG."""
LONG_SECONDS = 0.5
"""Predicted seconds above which a task is a long one, such as a film."""
MAX_MEMORY = 2**28
"""Maximum bytes that the running tasks of an `Offload` take together, unless one alone takes more."""


@dataclass(eq=False)
class _Task:
    function: Callable[[], Any]
    seconds: float
    """Predicted seconds in a thread."""
    memory: int
    """Predicted bytes of memory meanwhile."""
    future: asyncio.Future[Any]


class Offload:
    """Runs the tasks of many callers in a few threads, off the event loop. Callers take turns, one task each.

    Tasks that together take more than `MAX_MEMORY` do not run at the same time.
    A task that would wait longer than `wait_seconds` is refused. The wait is predicted from the tasks' own predictions
    and from how much slower than predicted they run. Make and use it on one event loop.
    """

    def __init__(self, threads: int, wait_seconds: float = math.inf) -> None:
        self._threads, self._wait_seconds = threads, wait_seconds
        self._executor = ThreadPoolExecutor(threads, thread_name_prefix="offload")
        self._waiting: dict[str, deque[_Task]] = {}
        """The waiting tasks of each caller, in the order of the callers' turns."""
        self._running: list[_Task] = []
        """Each thread's task, and one more for each, so that no thread waits for the event loop between two tasks."""
        self._slowdown = 1.0
        """Moving average of the seconds that tasks take, divided by the predicted ones; at least 1."""
        self.refused = self.dropped = 0
        """Tasks refused, and tasks dropped because their request ended, since the start."""

    def check(self, caller: str) -> None:
        """Raise if the waiting tasks of `caller` alone take too long: its next request would add to them.

        Raises:
            Overloaded: they do.
        """
        if tasks := self._waiting.get(caller):
            self._check_wait(self._slowdown * sum(task.seconds for task in tasks) / self._threads)

    def _check_wait(self, seconds: float) -> None:
        if seconds > self._wait_seconds:
            self.refused += 1
            raise Overloaded("too much waits for a thread")

    async def computed(self, caller: str, elements: int, function: Callable[..., Result], *arguments: Any) -> Result:
        """Return `function(*arguments)`, run in a thread if it makes more than `INLINE_ELEMENTS` array elements.

        It is never refused: the request has been admitted.
        """
        if elements <= INLINE_ELEMENTS:
            return function(*arguments)
        seconds, memory = elements * _SECONDS_PER_ELEMENT, elements * _BYTES_PER_ELEMENT
        return await self.run(caller, seconds, partial(function, *arguments), memory=memory, is_first=False)

    async def run(
        self, caller: str, seconds: float, function: Callable[[], Result], *, memory: int = 0, is_first: bool = True
    ) -> Result:
        """Return `function()`, run in a thread, where it takes about `seconds`, and `memory` bytes.

        The later tasks of a request are always accepted: `is_first` is false. Cancelling drops a waiting task.

        Raises:
            Overloaded: the task would wait too long.
            Exception: what `function` raised.
        """
        if is_first:
            self._check_wait(self.predicted_wait(caller))
        task = _Task(function, seconds, memory, asyncio.get_running_loop().create_future())
        self._waiting.setdefault(caller, deque()).append(task)
        self._fill()
        try:
            return cast(Result, await task.future)
        except asyncio.CancelledError:
            tasks = self._waiting.get(caller, ())
            if task in tasks:
                self.dropped += 1
                self._waiting[caller].remove(task)
                if not self._waiting[caller]:
                    del self._waiting[caller]
            raise

    def predicted_wait(self, caller: str) -> float:
        """Predicted wait, in seconds, of a task of `caller` that arrives now, from when the running tasks end.

        Its own waiting tasks run first, and for each of these, and for it, one of every other caller. Long ones of
        others leave a thread free.
        """
        turns = len(self._waiting.get(caller, ())) + 1
        seconds = 0.0
        for other, tasks in self._waiting.items():
            longest = math.inf if other == caller or self._threads == 1 else LONG_SECONDS
            seconds += sum(min(task.seconds, longest) for task in tasks) * min(1.0, turns / len(tasks))
        return self._slowdown * seconds / self._threads

    def close(self) -> None:
        """Drop all waiting tasks; running ones end by themselves."""
        self._waiting.clear()
        self._executor.shutdown(wait=False, cancel_futures=True)

    def _fill(self) -> None:
        """Give the callers their turns while a thread has no next task."""
        while len(self._running) < 2 * self._threads and (caller := self._next_caller()) is not None:
            tasks = self._waiting.pop(caller)
            task = tasks.popleft()
            if tasks:
                self._waiting[caller] = tasks  # behind the others
            self._running.append(task)
            self._executor.submit(self._run, asyncio.get_running_loop(), task)

    def _next_caller(self) -> str | None:
        """The caller whose next task runs now, if any does.

        A task that finds too little memory beside the running ones waits for it, and so does every later one that takes
        any. One that takes long waits while all threads but one are taken by such tasks.
        """
        taken, is_too_much = sum(task.memory for task in self._running), False
        long = sum(task.seconds > LONG_SECONDS for task in self._running)
        for caller, tasks in self._waiting.items():
            task = tasks[0]
            if task.seconds > LONG_SECONDS and long >= max(1, self._threads - 1):
                continue
            is_too_much |= bool(taken) and taken + task.memory > MAX_MEMORY
            if not is_too_much or not task.memory:
                return caller
        return None

    def _run(self, loop: asyncio.AbstractEventLoop, task: _Task) -> None:
        """Run a task, in a thread."""
        began, result = time.monotonic(), None
        error: Exception | None = None
        try:
            result = task.function()
        except StopIteration as raised:  # a future does not accept it
            error = RuntimeError(repr(raised))
        except Exception as raised:
            error = raised
        except BaseException as raised:  # it would end the thread
            error = RuntimeError(repr(raised))
        loop.call_soon_threadsafe(self._ended, task, time.monotonic() - began, result, error)

    def _ended(self, task: _Task, seconds: float, result: Any, error: Exception | None) -> None:
        self._running.remove(task)
        slowdown = min(max(seconds / task.seconds, 1.0), MAX_SLOWDOWN)  # quick tasks do not make others quicker
        self._slowdown += LATEST_BATCH_WEIGHT * (slowdown - self._slowdown)
        if not task.future.done():
            task.future.set_exception(error) if error else task.future.set_result(result)
        elif error is not None:  # of a request that has ended; its frames hold the body, and refer to the error
            error.__traceback__ = None
        self._fill()
