"""Requests that are given up, because their client went away or their time is up: what is being computed for them is
cancelled, and their rows are dropped."""

import asyncio
from collections.abc import Awaitable
from typing import TypeVar

from starlette.requests import ClientDisconnect
from starlette.types import Receive

from app.errors import DeadlineExceeded

Answer = TypeVar("Answer")

_SECONDS = 0.05
"""A request that takes less is not looked after: to ask whether its client is there would cost more than to answer."""


class Departures:
    """The requests that are being answered; those that take long are watched for their clients' departure, and for
    their deadline.

    Make and use it on one event loop.
    """

    def __init__(self, seconds: float) -> None:
        """`seconds` is the longest time that an answer may take, give or take a tenth of a second."""
        self._seconds = seconds
        self._new: dict[asyncio.Task[object], Receive] = {}
        self._older: dict[asyncio.Task[object], Receive] = {}
        self._watchers: dict[asyncio.Task[object], asyncio.Task[None]] = {}
        self._ended: dict[asyncio.Task[object], Exception] = {}
        """Those that are cancelled, and why."""
        self._is_ticking = False

    async def attend(self, answering: Awaitable[Answer], receive: Receive) -> Answer:
        """Await it, and cancel it when the client goes away or its time is up; the request's body must have been read
        before.

        Raises:
            ClientDisconnect: the client went away.
            DeadlineExceeded: its time is up.
            Exception: whatever `receive` raised meanwhile.
        """
        task = asyncio.current_task()
        assert task is not None
        self._new[task] = receive
        if not self._is_ticking:
            self._is_ticking = True
            asyncio.get_running_loop().call_later(_SECONDS, self._tick)
        try:
            return await answering
        except asyncio.CancelledError:
            if (reason := self._ended.get(task)) is None:
                raise
            task.uncancel()
            raise reason from None
        finally:
            self._new.pop(task, None)
            self._older.pop(task, None)
            self._ended.pop(task, None)
            if (watcher := self._watchers.pop(task, None)) is not None:
                watcher.cancel()

    def _tick(self) -> None:
        """Watch those that were there at the last tick, too."""
        for task, receive in self._older.items():
            self._watchers[task] = asyncio.get_running_loop().create_task(self._watch(task, receive))
        self._older, self._new = self._new, {}
        self._is_ticking = bool(self._older)
        if self._is_ticking:
            asyncio.get_running_loop().call_later(_SECONDS, self._tick)

    async def _watch(self, task: asyncio.Task[object], receive: Receive) -> None:
        try:
            async with asyncio.timeout(self._seconds):
                while (await receive())["type"] != "http.disconnect":
                    pass
            self._ended[task] = ClientDisconnect()
        except TimeoutError:
            self._ended[task] = DeadlineExceeded("the answer took too long")
        except Exception as error:  # a body that the operation does not take has come, and is too large
            self._ended[task] = error
        task.cancel()
