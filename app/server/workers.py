"""Several worker processes and their supervisor, on top of uvicorn's.

uvicorn provides signals, pings and the loop. Its methods that start a worker name its own `Process` class, so they are
overridden here.
"""

import logging
import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Callable
from socket import socket

from uvicorn import Config
from uvicorn.supervisors.multiprocess import Multiprocess, Process

from app.errors import StartupError
from app.metrics.processes import drop_gauges
from app.server.draining import DrainingServer

logger = logging.getLogger(__name__)

START_SECONDS = 300.0
"""Maximum seconds for a worker to start; uvicorn allows 5. A bundle that hangs ends the start earlier, after
`VAE_LOAD_SECONDS`."""
GRACE_SECONDS = 3.0
"""Seconds between the end of the drain and SIGKILL."""
MIN_UPTIME_SECONDS = 30.0
"""Minimum seconds that a worker must live to be replaced without a delay."""
MAX_DELAY_SECONDS = 30.0
"""Maximum seconds before a dead worker is replaced; the first delay is 1 second, and each next one is twice as long."""


class Worker(Process):
    """A worker process: the supervisor's handle, and the server inside the process.

    Extends uvicorn's `Process`, which does not drain the backlog, pings a worker that is still loading its models, and
    waits without limit for one that does not stop.
    """

    def __init__(self, config: Config, sockets: list[socket], delay: float = 0.0) -> None:
        """`delay` is the seconds between the death of the previous worker and the start of this one."""
        super().__init__(config, sockets)
        self.delay = delay
        self.restart_at: float | None = None
        """When a dead worker is replaced, as a time of `time.monotonic()`."""
        self._started_at = time.monotonic()
        self._kill_at: float | None = None

    @property
    def server(self) -> DrainingServer:
        """The server that runs inside the worker process."""
        if not isinstance(self._server, DrainingServer):
            self._server = DrainingServer(self.config)
        return self._server

    @property
    def age(self) -> float:
        return time.monotonic() - self._started_at

    def is_alive(self, timeout: float = 5) -> bool:
        """Return whether the process runs and, unless it may still be starting, answers a ping in `timeout` seconds."""
        if not self.process.is_alive():
            return False
        if self.age < START_SECONDS or self.ping(timeout):
            return True
        logger.error("worker %s does not answer: it is killed", self.pid)
        return False

    def terminate(self) -> None:
        """Send SIGTERM, after which `join` waits as long as the drain may take."""
        super().terminate()
        self._kill_at = time.monotonic() + (self.config.timeout_graceful_shutdown or 0) + GRACE_SECONDS

    def join(self) -> None:
        """Wait for the process to end; kill it when its time to stop has passed."""
        self.process.join(None if self._kill_at is None else max(0.0, self._kill_at - time.monotonic()))
        if self.exitcode is None:
            logger.error("worker %s does not stop: it is killed", self.pid)
            self.kill()
            self.process.join()
        drop_gauges(self.pid)


class Supervisor(Multiprocess):
    """Starts workers, replaces dead ones, and replaces all of them on SIGHUP.

    Extends uvicorn's `Multiprocess`, which restarts a failing worker without a delay, stops every worker if one
    cannot start, and on SIGHUP would replace good workers by ones that cannot load a broken models directory.
    """

    def __init__(self, config: Config, sockets: list[socket], check: Callable[[], None]) -> None:
        """`check` raises StartupError if a new worker could not start now."""
        super().__init__(config, sockets)
        self._check = check

    def init_processes(self) -> None:
        self.processes += [self._start_worker() for _ in range(self.processes_num)]

    def _start_worker(self, delay: float = 0.0) -> Worker:
        worker = Worker(self.config, self.sockets, delay)
        worker.start()
        return worker

    def keep_subprocess_alive(self) -> None:
        """Replace dead workers, each after its delay; the others keep serving."""
        for index, worker in enumerate(self.processes):
            assert isinstance(worker, Worker)
            if self.should_exit.is_set():
                return
            if worker.restart_at is None and not worker.is_alive(self.config.timeout_worker_healthcheck):
                worker.kill()
                worker.join()
                delay = 0.0 if worker.age >= MIN_UPTIME_SECONDS else min(max(1.0, 2 * worker.delay), MAX_DELAY_SECONDS)
                worker.delay, worker.restart_at = delay, time.monotonic() + delay
                message = "worker %s died with status %s after %.0f s; the next starts in %.0f s"
                logger.error(message, worker.pid, worker.exitcode, worker.age, delay)
            if worker.restart_at is not None and time.monotonic() >= worker.restart_at:
                self.processes[index] = self._start_worker(worker.delay)

    def handle_ttin(self) -> None:
        self.processes_num += 1
        self.processes.append(self._start_worker())

    def handle_hup(self) -> None:
        """Replace the workers, unless the check says that new ones could not start."""
        try:
            self._check()
            logger.info("SIGHUP: replacing the workers, one by one")
            self.restart_all()
        except Exception as error:  # if raised, it would end the supervisor
            unexpected = not isinstance(error, StartupError)
            logger.error("SIGHUP: the workers stay as they are: %s", error, exc_info=unexpected)

    def restart_all(self) -> None:
        """Replace each worker once its successor is ready; end early on a stop signal or a failed start."""
        for index, old in enumerate(self.processes):
            if {signal.SIGINT, signal.SIGTERM} & set(self.signal_queue):
                return
            new = self._start_worker()
            if not new.wait_until_ready(START_SECONDS):
                logger.error("SIGHUP: a new worker did not start; %s of %s are replaced", index, len(self.processes))
                new.kill()
                new.join()
                return
            self.processes[index] = new
            old.terminate()
            old.join()

    def terminate_all(self) -> None:
        """Stop the workers; first close the supervisor's sockets, where a connection would wait forever."""
        for bound in self.sockets:
            bound.close()
        super().terminate_all()


def stop_with_supervisor(shutdown_seconds: float) -> None:
    """In a worker: stop when the supervisor dies, because nothing else would stop the worker then."""
    supervisor = multiprocessing.parent_process()
    if supervisor is None:
        return

    def stop_after_supervisor() -> None:
        supervisor.join()
        logger.error("the supervisor is gone: worker %s stops", os.getpid())
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(shutdown_seconds + GRACE_SECONDS)
        os.kill(os.getpid(), signal.SIGKILL)  # the process hangs

    threading.Thread(target=stop_after_supervisor, daemon=True).start()
