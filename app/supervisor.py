"""uvicorn's supervisor of several workers, but for SIGHUP: it rolls them only if the models can be served."""

import logging
import signal
import time
from collections.abc import Callable
from socket import socket

from uvicorn import Config
from uvicorn.supervisors.multiprocess import Multiprocess, Process

from app.errors import StartupError

logger = logging.getLogger(__name__)

START_SECONDS = 60.0
"""Longest time that a worker may take to read its models; uvicorn would give up after 5."""

GRACE_SECONDS = 3.0
"""Time that a worker gets to end, after that of its requests."""


class Supervisor(Multiprocess):
    """Starts workers, replaces those that die, and rolls them all when SIGHUP comes: the next is ready to answer
    before the one it replaces is told to stop."""

    def __init__(self, config: Config, sockets: list[socket], check: Callable[[], None]) -> None:
        """`check` proves that a worker could start now; it raises StartupError where it could not."""
        super().__init__(config, sockets)
        self._check = check

    def handle_hup(self) -> None:
        """Roll the workers; where the models cannot be served, leave them as they are: every new one would fail."""
        try:
            self._check()
            logger.info("SIGHUP: replacing the workers, one by one")
            self.restart_all()
        except StartupError as error:
            logger.error("SIGHUP: the workers stay as they are: %s", error)
        except Exception:  # which would end the loop, and with it what heeds SIGTERM
            logger.exception("SIGHUP: the workers stay as they are")

    def restart_all(self) -> None:
        """Replace each worker, unless one cannot start or the supervisor is to stop."""
        for index, old in enumerate(self.processes):
            if {signal.SIGINT, signal.SIGTERM} & set(self.signal_queue):
                return
            new = Process(self.config, self.sockets)
            new.start()
            if not new.wait_until_ready(START_SECONDS):
                logger.error("SIGHUP: a new worker did not start; %s of %s are new", index, len(self.processes))
                new.kill()
                new.join()
                return
            self.processes[index] = new
            old.terminate()
            self._see_off(old, self._last_moment())

    def join_all(self) -> None:
        """Wait for the workers, which are told to stop, to end."""
        until = self._last_moment()
        for process in self.processes:
            self._see_off(process, until)

    def _last_moment(self) -> float:
        """When whoever is told to stop now has had the time that its requests get, by `time.monotonic()`."""
        return time.monotonic() + (self.config.timeout_graceful_shutdown or 0) + GRACE_SECONDS

    @staticmethod
    def _see_off(process: Process, until: float) -> None:
        """Wait for a worker to end; one that has not by then hangs, and is killed."""
        process.process.join(max(0.0, until - time.monotonic()))
        if process.exitcode is None:
            logger.error("worker %s does not stop: it is killed", process.pid)
            process.kill()
            process.join()
