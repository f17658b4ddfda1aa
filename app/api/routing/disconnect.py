"""Cancels the work of requests whose client has disconnected or whose deadline has passed; their rows are dropped."""

import asyncio
from collections.abc import Awaitable
from typing import TypeVar

from starlette.requests import ClientDisconnect
from starlette.types import Receive

from app.errors import DeadlineExceeded

Result = TypeVar("Result")

_TICK_SECONDS = 0.05
"""Requests shorter than this are not watched: polling for a disconnect would cost more than answering."""


class DisconnectWatcher:
    """Watches long requests for a disconnect of their client and for their deadline.

    Make and use it on one event loop.
    """

    def __init__(self, seconds: float) -> None:
        """`seconds` is the deadline of a response, accurate to a tenth of a second."""
        self._seconds = seconds
        self._new: dict[asyncio.Task[object], Receive] = {}
        """Requests that began after the last tick."""
        self._older: dict[asyncio.Task[object], Receive] = {}
        """Requests that began before the last tick; they are watched from the next tick on."""
        self._watchers: dict[asyncio.Task[object], asyncio.Task[None]] = {}
        self._reasons: dict[asyncio.Task[object], Exception] = {}
        """Why each cancelled request was cancelled."""
        self._is_ticking = False

    async def watch(self, work: Awaitable[Result], receive: Receive) -> Result:
        """Await `work`, and cancel it at a disconnect or at the deadline; the request's body must have been read.

        Raises:
            ClientDisconnect: the client disconnected.
            DeadlineExceeded: the deadline has passed.
            Exception: an exception that `receive` raised meanwhile.
        """
        task = asyncio.current_task()
        assert task is not None
        self._new[task] = receive
        if not self._is_ticking:
            self._is_ticking = True
            asyncio.get_running_loop().call_later(_TICK_SECONDS, self._tick)
        try:
            return await work
        except asyncio.CancelledError:
            if (reason := self._reasons.get(task)) is None:
                raise
            task.uncancel()
            raise reason from None
        finally:
            if self._new.pop(task, None) is None:
                self._older.pop(task, None)
                self._reasons.pop(task, None)
                if (watcher := self._watchers.pop(task, None)) is not None:
                    watcher.cancel()

    def _tick(self) -> None:
        """Start watching the requests that began before the previous tick."""
        for task, receive in self._older.items():
            self._watchers[task] = asyncio.get_running_loop().create_task(self._wait_for_end(task, receive))
        self._older, self._new = self._new, {}
        self._is_ticking = bool(self._older)
        if self._is_ticking:
            asyncio.get_running_loop().call_later(_TICK_SECONDS, self._tick)

    async def _wait_for_end(self, task: asyncio.Task[object], receive: Receive) -> None:
        try:
            async with asyncio.timeout(self._seconds):
                while (await receive())["type"] != "http.disconnect":
                    pass
            self._reasons[task] = ClientDisconnect()
        except TimeoutError:
            self._reasons[task] = DeadlineExceeded("the response took too long")
        except Exception as error:  # a GET request has a body, and it is too large
            self._reasons[task] = error
        task.cancel()
