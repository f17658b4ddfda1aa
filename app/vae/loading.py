"""Threads that read and load bundles, each within a deadline, so that one that hangs holds up no later load."""

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from app.bundle.files import Bundle
from app.errors import BundleError
from app.vae.vae import Vae

Result = TypeVar("Result")

LoadVae = Callable[[Bundle], Vae]
"""Loads a bundle's graphs on the execution provider chosen at start, and warms them up.

Raises StartupError if the bundle cannot be served."""

MAX_THREADS = 5
"""Maximum loading threads of a process: the current load, and earlier ones that hang, which Python cannot end."""
_THREAD_NAME = "loading"
_free_threads = threading.BoundedSemaphore(MAX_THREADS)


@dataclass
class Loader:
    """Loads bundles with `load_vae`, and gives up on one that takes more than `seconds`."""

    load_vae: LoadVae
    seconds: float = 120

    def wait_for(self, work: Callable[[], Result], directory: Path) -> Result:
        """Return the result of `work`, which reads or loads what is in `directory`, and block until then.

        Raises:
            BundleError: it takes too long, or too many earlier loads hang.
            Exception: what `work` raises.
        """
        future = _started(work)
        try:
            return future.result(self.seconds)
        except TimeoutError:
            raise self._too_late(directory) from None
        finally:
            del future  # an error's traceback refers to this frame: a cycle would keep the bundle until collected

    async def run(self, work: Callable[[], Result], directory: Path) -> Result:
        """The same without blocking the event loop."""
        future = asyncio.wrap_future(_started(work))
        try:
            async with asyncio.timeout(self.seconds):
                return await future
        except TimeoutError:
            raise self._too_late(directory) from None
        finally:
            del future

    def _too_late(self, directory: Path) -> BundleError:
        return BundleError(f"{directory} was not loaded within {self.seconds:g} s (VAE_LOAD_SECONDS)")


def is_loading() -> bool:
    """Whether a load is running or hangs in this process."""
    return any(thread.name == _THREAD_NAME for thread in threading.enumerate())


def _started(work: Callable[[], Result]) -> Future[Result]:
    """Run `work` in a daemon thread, which does not keep the process from ending."""
    if not _free_threads.acquire(blocking=False):
        raise BundleError(f"{MAX_THREADS} earlier loads hang: restart the server to load another bundle")
    future: Future[Result] = Future()
    future.set_running_or_notify_cancel()  # it can no longer be cancelled, only be ignored
    try:
        threading.Thread(target=_run, args=(work, future), name=_THREAD_NAME, daemon=True).start()
    except RuntimeError as error:  # the system has no more threads
        _free_threads.release()
        raise BundleError(f"no thread can be started to load a bundle: {error}") from None
    return future


def _run(work: Callable[[], Result], future: Future[Result]) -> None:
    try:
        result = work()
    except BaseException as error:
        _free_threads.release()
        future.set_exception(error)
    else:
        _free_threads.release()
        future.set_result(result)
    finally:
        del future
