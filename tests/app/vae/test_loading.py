"""Loads that hang: each is refused at its deadline, and later ones do not wait for it."""

import asyncio
import gc
import threading
import weakref
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

import pytest

from app.bundle.files import Bundle
from app.errors import BundleError, BundleRefused, UnknownModel
from app.inference.batcher import Batcher
from app.vae.catalog import Catalog, load_catalog
from app.vae.loading import MAX_THREADS, Loader, is_loading
from app.vae.vae import Vae
from tests.conftest import put_bundle
from tests.processes import PATIENCE, until

Result = TypeVar("Result")
HERE = Path("somewhere")


def unused(_: Bundle) -> Vae:
    raise AssertionError


def blocking(loader: Loader, work: Callable[[], Result]) -> Result:
    return loader.wait_for(work, HERE)


def on_a_loop(loader: Loader, work: Callable[[], Result]) -> Result:
    return asyncio.run(loader.run(work, HERE))


EITHER_WAY: list[Callable[[Loader, Callable[[], object]], object]] = [blocking, on_a_loop]
HASTY, PATIENT_LOADER = Loader(unused, 0.01), Loader(unused, PATIENCE)


def test_work_gives_its_result_or_its_error_either_way() -> None:
    for wait in EITHER_WAY:
        assert wait(PATIENT_LOADER, lambda: 7) == 7
        with pytest.raises(ZeroDivisionError):
            wait(PATIENT_LOADER, lambda: 1 // 0)


def test_what_hangs_is_given_up_and_too_many_of_those_are_too_much() -> None:
    done = threading.Event()
    try:
        for wait in (EITHER_WAY * MAX_THREADS)[:MAX_THREADS]:
            with pytest.raises(BundleError, match=r"^somewhere was not loaded within 0\.01 s \(VAE_LOAD_SECONDS\)$"):
                wait(HASTY, lambda: done.wait(PATIENCE))
        assert is_loading()
        with pytest.raises(BundleError, match="earlier loads hang"):
            PATIENT_LOADER.wait_for(lambda: 7, HERE)
    finally:
        done.set()
    assert until(works)


def works() -> bool:
    try:
        return PATIENT_LOADER.wait_for(lambda: True, HERE)
    except BundleError:
        return False


class HastyWith(Loader):
    """Waits for one model only a moment, and for others as long as it takes."""

    async def run(self, work: Callable[[], Result], directory: Path) -> Result:
        return await Loader(self.load_vae, 0.01 if "hangs" in directory.parts else PATIENCE).run(work, directory)


def test_a_bundle_that_hangs_is_refused_and_the_next_one_is_loaded(
    models_copy: Path, caplog: pytest.LogCaptureFixture
) -> None:
    done, batcher = threading.Event(), Batcher()

    def make(bundle: Bundle) -> Vae:
        assert bundle.manifest.name != "hangs" or done.wait(PATIENCE)
        return Vae(bundle, batcher)

    async def main() -> None:
        served = list(load_catalog(models_copy, "mnist-2d", batcher, execution_providers=["cpu"]))
        catalog = Catalog(served, "mnist-2d", batcher, models_copy, HastyWith(make))
        directory = put_bundle(models_copy, 1, name="hangs")
        with pytest.raises(BundleRefused):
            await catalog.load("hangs")
        assert f"refused: {directory} was not loaded within 0.01 s (VAE_LOAD_SECONDS)" in caplog.messages
        assert [it.reason for it in await catalog.known() if it.name == "hangs"] == ["refused: see the log"]
        put_bundle(models_copy, 2)
        reloaded = await catalog.reload()
        assert (reloaded.loaded, reloaded.refused) == ([("mnist-2d", 2)], [("hangs", 1)])
        assert catalog.refusals == 2
        done.set()
        assert await asyncio.to_thread(until, works)
        with pytest.raises(UnknownModel):  # what is loaded too late is dropped
            catalog.find("hangs")

    try:
        asyncio.run(main())
    finally:
        done.set()
    assert until(works)


@dataclass
class Stuck(Loader):
    """Whatever it reads hangs until `done`."""

    done: threading.Event = field(default_factory=threading.Event)

    async def run(self, work: Callable[[], Result], directory: Path) -> Result:
        def hang() -> Result:
            self.done.wait(PATIENCE)
            return work()

        return await Loader(self.load_vae, 0.01).run(hang, directory)


def test_a_directory_that_hangs_is_refused(models_copy: Path) -> None:
    batcher, loader = Batcher(), Stuck(unused)
    served = list(load_catalog(models_copy, "mnist-2d", batcher, execution_providers=["cpu"]))
    catalog = Catalog(served, "mnist-2d", batcher, models_copy, loader)
    try:
        for change in (catalog.load("mnist-2d"), catalog.reload(), catalog.unload("mnist-2d", 1)):
            with pytest.raises(BundleRefused, match="the models directory cannot be read"):
                asyncio.run(change)
    finally:
        loader.done.set()
    assert catalog.refusals == 3
    assert list(catalog) == served
    assert until(works)


def test_an_error_keeps_nothing_of_what_was_read() -> None:
    seen = []

    class Content:
        """Stands for the bytes of a bundle."""

    def fail() -> None:
        content = Content()
        seen.append(weakref.ref(content))
        raise BundleError("broken")

    async def fail_on_a_loop() -> None:
        with suppress(BundleError):
            await PATIENT_LOADER.run(fail, HERE)

    gc.disable()  # which would also collect cycles, but late
    try:
        with suppress(BundleError):
            PATIENT_LOADER.wait_for(fail, HERE)
        asyncio.run(fail_on_a_loop())
        assert until(lambda: not is_loading())
        assert [content() for content in seen] == [None, None]
    finally:
        gc.enable()
