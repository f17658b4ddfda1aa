"""Clients that go away: what is being computed for them is cancelled, and their rows are dropped."""

import asyncio
from collections.abc import Awaitable
from typing import TypeVar

from starlette.requests import ClientDisconnect
from starlette.types import Receive

Answer = TypeVar("Answer")

_SECONDS = 0.05
"""A request that takes less is not looked after: to ask whether its client is there would cost more than to answer."""


class Departures:
    """The requests that are being answered; those that take long are watched for their clients' departure.

    Make and use it on one event loop.
    """

    def __init__(self) -> None:
        self._new: dict[asyncio.Task[object], Receive] = {}
        self._older: dict[asyncio.Task[object], Receive] = {}
        self._watchers: dict[asyncio.Task[object], asyncio.Task[None]] = {}
        self._gone: set[asyncio.Task[object]] = set()
        self._is_ticking = False

    async def attend(self, answering: Awaitable[Answer], receive: Receive) -> Answer:
        """Await it, and cancel it when the client goes away; the request's body must have been read before.

        Raises:
            ClientDisconnect: it went away.
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
            if task not in self._gone:
                raise
            task.uncancel()
            raise ClientDisconnect from None
        finally:
            self._new.pop(task, None)
            self._older.pop(task, None)
            self._gone.discard(task)
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
        while (await receive())["type"] != "http.disconnect":
            pass
        self._gone.add(task)
        task.cancel()
