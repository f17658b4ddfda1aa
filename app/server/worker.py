"""One of several server processes, as its supervisor sees it and from within: neither outlives the other unnoticed."""

import logging
import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Callable

from uvicorn.supervisors.multiprocess import Process

from app.server.run import Server

logger = logging.getLogger(__name__)

START_SECONDS = 60.0
"""Longest time that a worker may take to read its models; uvicorn would give up after 5."""

GRACE_SECONDS = 3.0
"""Time that a worker gets to end, after that of its requests."""


class Worker(Process):
    """A worker, and how long it has lived."""

    started = 0.0
    died: float | None = None
    """Times of `time.monotonic()`."""

    @property
    def server(self) -> Server:
        """Within the worker, what it runs."""
        if not isinstance(self._server, Server):
            self._server = Server(self.config)
        return self._server

    def start(self) -> None:
        """Start it."""
        super().start()
        self.started = time.monotonic()

    @property
    def age(self) -> float:
        """Seconds that it has lived, or had when it died."""
        return (time.monotonic() if self.died is None else self.died) - self.started

    def is_well(self) -> bool:
        """Whether it runs, and answers its supervisor unless it is starting. One that hangs is killed."""
        if self.died is None and not self._is_running():
            self.kill()
            self.process.join()
            self.died = time.monotonic()
        return self.died is None

    def _is_running(self) -> bool:
        if not self.process.is_alive():
            return False
        if self.age < START_SECONDS or self.ping(self.config.timeout_worker_healthcheck):
            return True
        logger.error("worker %s does not answer: it is killed", self.pid)
        return False

    def see_off(self, until: float) -> None:
        """Wait until it has ended; one that has not by then, a time of `time.monotonic()`, hangs, and is killed."""
        self.process.join(max(0.0, until - time.monotonic()))
        if self.exitcode is None:
            logger.error("worker %s does not stop: it is killed", self.pid)
            self.kill()
            self.process.join()


def end_with_supervisor(shutdown_seconds: float) -> None:
    """In a worker: stop when the supervisor is no more, killed perhaps, because nobody else would tell it to."""
    supervisor = multiprocessing.parent_process()
    if supervisor is not None:
        threading.Thread(target=_follow, args=[supervisor.join, shutdown_seconds], daemon=True).start()


def _follow(wait: Callable[[], object], shutdown_seconds: float) -> None:
    wait()
    logger.error("the supervisor is gone: worker %s stops", os.getpid())
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(shutdown_seconds + GRACE_SECONDS)
    os.kill(os.getpid(), signal.SIGKILL)  # it hangs
