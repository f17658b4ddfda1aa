"""uvicorn's supervisor of several workers, but for two things: SIGHUP rolls them only if the models can be served, and
those that die again and again are started less and less often.
"""

import logging
import signal
import time
from collections.abc import Callable
from socket import socket

from uvicorn import Config
from uvicorn.supervisors.multiprocess import Multiprocess, Process

from app.errors import StartupError
from app.server.worker import GRACE_SECONDS, START_SECONDS, Worker

logger = logging.getLogger(__name__)

SHORT_LIFE = 30.0
"""Seconds: a worker that dies sooner may do so again, and is replaced after a pause."""
LONGEST_PAUSE = 30.0
"""Seconds: the first pause is of one, each that follows twice as long, up to this."""


class Supervisor(Multiprocess):
    """Starts workers, replaces those that die, and rolls them all when SIGHUP comes: the next is ready to answer
    before the one it replaces is told to stop."""

    def __init__(self, config: Config, sockets: list[socket], check: Callable[[], None]) -> None:
        """`check` proves that a worker could start now; it raises StartupError where it could not."""
        super().__init__(config, sockets)
        self._check = check
        self._pauses: dict[int, float] = {}
        self._due: dict[int, float] = {}
        """By a worker's place: the last pause in seconds, and when the next worker is to be started."""

    def init_processes(self) -> None:
        """Start all workers."""
        self.processes += [self._started() for _ in range(self.processes_num)]

    def _started(self) -> Worker:
        worker = Worker(self.config, self.sockets)
        worker.start()
        return worker

    def keep_subprocess_alive(self) -> None:
        """Replace those that have died; the others serve meanwhile."""
        for index, worker in enumerate(self.processes):
            assert isinstance(worker, Worker)
            if self.should_exit.is_set():
                return
            if worker.is_well():
                continue
            if index not in self._due:
                self._due[index] = time.monotonic() + self._pause(index, worker)
            if time.monotonic() >= self._due[index]:
                del self._due[index]
                self.processes[index] = self._started()

    def _pause(self, index: int, worker: Worker) -> float:
        """How many seconds there is to be no worker in the place of one that died."""
        if worker.age >= SHORT_LIFE:
            self._pauses[index] = 0.0
        else:
            self._pauses[index] = min(max(1.0, 2 * self._pauses.get(index, 0.0)), LONGEST_PAUSE)
        said = "worker %s died with status %s after %.0f s; the next starts in %.0f s"
        logger.error(said, worker.pid, worker.exitcode, worker.age, self._pauses[index])
        return self._pauses[index]

    def handle_ttin(self) -> None:
        """Start one worker more."""
        self.processes_num += 1
        self.processes.append(self._started())

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
            new = self._started()
            if not new.wait_until_ready(START_SECONDS):
                logger.error("SIGHUP: a new worker did not start; %s of %s are new", index, len(self.processes))
                new.kill()
                new.join()
                return
            self.processes[index] = new
            self._due.pop(index, None)
            self._pauses.pop(index, None)
            old.terminate()
            _see_off(old, self._last_moment())

    def terminate_all(self) -> None:
        """Tell the workers to stop. Whoever connects to a socket that is open here alone would wait for nobody."""
        for bound in self.sockets:
            bound.close()
        super().terminate_all()

    def join_all(self) -> None:
        """Wait for the workers, which are told to stop, to end."""
        until = self._last_moment()
        for process in self.processes:
            _see_off(process, until)

    def _last_moment(self) -> float:
        """When whoever is told to stop now has had the time that its requests get, by `time.monotonic()`."""
        return time.monotonic() + (self.config.timeout_graceful_shutdown or 0) + GRACE_SECONDS


def _see_off(process: Process, until: float) -> None:
    assert isinstance(process, Worker)
    process.see_off(until)
