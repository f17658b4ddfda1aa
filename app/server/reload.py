"""SIGHUP to a lone server process: it takes in what has changed in the models directory, and goes on."""

import asyncio
import logging
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from app.errors import BundleRefused
from app.vae.catalog import Catalog

logger = logging.getLogger(__name__)


@contextmanager
def reloads_on_hangup(catalog: Catalog) -> Iterator[None]:
    """While it lasts, SIGHUP reloads the catalog of the running event loop; where the loop is not the main thread's,
    which alone can listen to signals, nothing changes."""
    if threading.current_thread() is not threading.main_thread() or not hasattr(signal, "SIGHUP"):
        yield
        return
    loop, reloading = asyncio.get_running_loop(), set[asyncio.Task[None]]()

    def hang_up() -> None:
        task = loop.create_task(_reload(catalog))
        reloading.add(task)  # the loop itself would let go of it
        task.add_done_callback(reloading.discard)

    loop.add_signal_handler(signal.SIGHUP, hang_up)
    try:
        yield
    finally:
        ignore_hangups()  # what is stopping is neither reloaded nor killed


def ignore_hangups() -> None:
    """From now on SIGHUP does nothing; left alone, it would end the process."""
    if hasattr(signal, "SIGHUP"):
        signal.signal(signal.SIGHUP, signal.SIG_IGN)


async def _reload(catalog: Catalog) -> None:
    logger.info("SIGHUP: reloading the models directory")
    try:
        reloaded = await catalog.reload()
    except BundleRefused as error:
        logger.error("SIGHUP: %s", error)
    else:
        sizes = (len(reloaded.loaded), len(reloaded.unloaded), len(reloaded.kept), len(reloaded.refused))
        logger.info("reloaded: %s loaded, %s unloaded, %s kept, %s refused", *sizes)
