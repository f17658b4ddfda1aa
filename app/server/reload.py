"""SIGHUP to a server without workers: reload the models directory and keep serving."""

import asyncio
import logging
import signal

from app.errors import BundleRefused
from app.vae.catalog import Catalog

logger = logging.getLogger(__name__)


def reload_on_hangup(catalog: Catalog) -> None:
    """Reload `catalog` in the running event loop at every SIGHUP from now on; for the main thread only."""
    if not hasattr(signal, "SIGHUP"):
        return
    loop, reloads = asyncio.get_running_loop(), set[asyncio.Task[None]]()

    def start_reload() -> None:
        task = loop.create_task(_reload(catalog))
        reloads.add(task)  # the loop holds only a weak reference
        task.add_done_callback(reloads.discard)

    loop.add_signal_handler(signal.SIGHUP, start_reload)


def ignore_hangups() -> None:
    """Ignore SIGHUP from now on; by default it would end the process."""
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
