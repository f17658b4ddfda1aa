"""The served models: discovered at start, looked up by name and version, loaded, unloaded and reloaded at run time.

A name from outside is never a path: it is looked up among what the models directory holds.
"""

import asyncio
import logging
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Literal

from app.bundle.directory import ModelKey, find_bundles, read_found
from app.bundle.files import Bundle, read_manifest
from app.bundle.manifest import MANIFEST
from app.errors import (
    BundleError,
    BundleRefused,
    Conflict,
    ExecutionProviderError,
    Overloaded,
    StartupError,
    UnknownModel,
)
from app.inference.batcher import Batcher
from app.inference.graphs import ServingOptions
from app.inference.session import ExecutionProvider
from app.vae.vae import DEFAULT_OPTIONS, Vae

logger = logging.getLogger(__name__)

Make = Callable[[Bundle], Vae]
"""Loads a bundle's graphs, on the execution provider chosen at start, and warms them up.

Raises StartupError where it cannot be served."""


@dataclass(frozen=True)
class Known:
    """A version of a model that is served or lies in the models directory."""

    name: str
    version: int
    state: Literal["ready", "loading", "unavailable"]
    reason: str
    """Why it is not ready, or not as the directory has it; empty where there is nothing to say."""


@dataclass(frozen=True)
class Reload:
    """What a reload came to: `loaded` and `kept` together are what is served now. Each ascending."""

    loaded: list[ModelKey]
    """New, or changed and replaced."""
    unloaded: list[ModelKey]
    """Gone from the directory."""
    kept: list[ModelKey]
    """Served as before."""
    refused: list[ModelKey]
    """In the directory, but broken; what answered before, if anything did, is among `kept`."""


class Catalog:
    """The served models, by name, then by version, and the batcher that they share.

    Bundles are read and warmed up in a thread, one change after another; what is served changes on the event loop, at
    once, so that a request finds the old or the new and never waits. Make and use it on one loop.
    """

    def __init__(
        self,
        vaes: list[Vae],
        default: str,
        batcher: Batcher,
        models_dir: Path,
        make: Make,
        names: Collection[str] = (),
    ) -> None:
        """`names` are the models that are to be served of the directory, all if there are none.

        Raises StartupError where `default` is not among several models."""
        self._batcher, self._models_dir, self._make, self._names = batcher, models_dir, make, names
        self._vaes: dict[str, dict[int, Vae]] = {}
        self._serve({ModelKey(vae.manifest.name, vae.manifest.version): vae for vae in vaes})
        if default not in self._vaes and len(self._vaes) == 1:
            default = next(iter(self._vaes))
        if default not in self._vaes:
            raise StartupError(f"VAE_DEFAULT_MODEL is {default}, but the models are {', '.join(self._vaes)}")
        self.default = default
        self._changing = asyncio.Lock()
        self._loading: set[ModelKey] = set()
        self._refused: set[ModelKey] = set()
        self._unloaded: set[ModelKey] = set()
        """What `unload` took out: `reload` leaves it out, until `load` takes it in or its directory is gone."""
        self.refusals = 0
        """How often a bundle, or the whole directory, was refused since the start."""

    def __iter__(self) -> Iterator[Vae]:
        return (vae for versions in self._vaes.values() for vae in versions.values())

    def find(self, name: str | None = None, version: int | None = None) -> Vae:
        """The model `name` (the default one if None) in `version` (the newest if None).

        Raises:
            UnknownModel: there is none.
        """
        versions = self._vaes.get(self.default if name is None else name)
        if versions is None:
            raise UnknownModel("no model of this name; GET /models lists them")
        vae = versions.get(max(versions) if version is None else version)
        if vae is None:
            raise UnknownModel("this model has no such version; GET /models lists them")
        return vae

    def versions(self, name: str) -> list[int]:
        """The versions of a model that is there, ascending."""
        return sorted(self._vaes[name])

    def known(self) -> list[Known]:
        """Every version of every model that is served or lies in the models directory, ascending."""
        served, held = self._served, self._held()
        return [self._describe(key, key in served, key in held) for key in sorted(served.keys() | held.keys())]

    async def load(self, name: str, version: int | None = None) -> list[Vae]:
        """Serve what the models directory has of `name` in `version` (in every version if None): all of it or, where a
        bundle is broken, nothing new. What is served already as the directory has it is kept.

        Raises:
            UnknownModel: the models directory has none such.
            BundleRefused: a bundle cannot be served; what answered before answers on.
        """
        async with self._changing:
            held = await asyncio.to_thread(self._held)
            chosen = {key: path for key, path in held.items() if _is_meant(key, name, version)}
            if not chosen:
                raise UnknownModel("the models directory has no such model or version")
            vaes = await self._read(chosen)
            if self._refused & chosen.keys():
                raise BundleRefused("the bundle cannot be served, the log says why; what answered before answers on")
            self._unloaded -= chosen.keys()
            self._serve(self._served | vaes)
            return list(vaes.values())

    async def unload(self, name: str, version: int | None = None) -> list[ModelKey]:
        """Serve `version` of `name` (every version if None) no more, and return what was served; requests that were
        accepted finish. `reload` leaves it out, until `load` takes it in again.

        Raises:
            UnknownModel: it is neither served nor in the models directory.
            Conflict: nothing of the default model would be left.
        """
        async with self._changing:
            held, served = await asyncio.to_thread(self._held), self._served
            gone = {key for key in held.keys() | served.keys() if _is_meant(key, name, version)}
            if not gone:
                raise UnknownModel("no such model or version, served or in the models directory")
            left = {key: vae for key, vae in served.items() if key not in gone}
            if not any(key.name == self.default for key in left):
                raise Conflict("the default model keeps one version at least")
            self._unloaded |= gone
            self._serve(left)
            return sorted(served.keys() & gone)

    async def reload(self) -> Reload:
        """Serve what the models directory holds now: load what is new or changed, take out what has vanished. What is
        broken is refused, and what answered before answers on; so does the default model's newest version, were it to
        lose all.

        Raises:
            BundleRefused: the directory holds no bundle at all; nothing changes.
        """
        async with self._changing:
            held = await asyncio.to_thread(self._held)
            if not held:
                self.refusals += 1
                raise BundleRefused("the models directory holds no bundle; what answered before answers on")
            self._unloaded &= held.keys()
            self._refused &= held.keys()
            before = self._served
            staying = {key: vae for key, vae in before.items() if key in held}
            vaes = staying | await self._read({key: path for key, path in held.items() if key not in self._unloaded})
            if not any(key.name == self.default for key in vaes):
                last = max(key for key in before if key.name == self.default)
                vaes[last] = before[last]
            self._serve(vaes)
            return Reload(
                loaded=sorted(key for key in vaes if vaes[key] is not before.get(key)),
                unloaded=sorted(before.keys() - vaes.keys()),
                kept=sorted(key for key in vaes if vaes[key] is before.get(key)),
                refused=sorted(self._refused - self._unloaded),
            )

    @property
    def queued_rows(self) -> int:
        """Rows that wait for a slot."""
        return self._batcher.queued_rows

    def check_ready(self) -> None:
        """Refuse where requests are not taken.

        Raises:
            Overloaded: the server stops.
        """
        if self._batcher.is_closed:
            raise Overloaded("the server is stopping")

    async def close(self) -> None:
        """Take no more requests, and wait until all accepted ones have ended."""
        await self._batcher.close()

    @property
    def _served(self) -> dict[ModelKey, Vae]:
        return {ModelKey(vae.manifest.name, vae.manifest.version): vae for vae in self}

    def _serve(self, vaes: dict[ModelKey, Vae]) -> None:
        """From now on these answer, and no others."""
        before, table = self._served, dict[str, dict[int, Vae]]()
        for key in sorted(vaes):
            table.setdefault(key.name, {})[key.version] = vaes[key]
            if vaes[key] is not before.get(key):
                logger.info("loaded %s version %s", *key)
        for key in before.keys() - vaes.keys():
            logger.info("unloaded %s version %s", *key)
        self._vaes = table

    def _held(self) -> dict[ModelKey, Path]:
        """What the models directory holds now; nothing, where it is one bundle whose manifest is broken."""
        try:
            return find_bundles(self._models_dir, self._names)
        except BundleError as error:
            logger.error("refused: %s", error)
            return {}

    async def _read(self, chosen: dict[ModelKey, Path]) -> dict[ModelKey, Vae]:
        """The Vaes of bundles, ready to run, without those that are refused; what is unchanged is as it is served."""
        served = self._served
        self._loading = set(chosen)
        try:
            read = await asyncio.to_thread(
                lambda: {key: self._vae(key, chosen[key], served.get(key)) for key in chosen}
            )
        finally:
            self._loading = set()
        vaes = {key: vae for key, vae in read.items() if vae is not None}
        refused = chosen.keys() - vaes.keys()
        self.refusals += len(refused)
        self._refused = (self._refused - chosen.keys()) | refused
        return vaes

    def _vae(self, key: ModelKey, directory: Path, served: Vae | None) -> Vae | None:
        """What the bundle of a directory is to be served as; None where it cannot be. Runs in a thread."""
        try:
            if served is not None and read_manifest(directory).digest == served.digest:
                return served
            return self._make(read_found(key, directory))
        except StartupError as error:
            logger.error("refused: %s", error)
        except Exception:  # whatever else a broken bundle may raise is the log's, and ends nothing
            logger.exception("refused: %s", directory)
        return None

    def _describe(self, key: ModelKey, is_served: bool, is_held: bool) -> Known:
        if is_served:
            reason = "a change was refused: see the log" if key in self._refused else ""
            return Known(*key, "ready", reason if is_held else "gone from the models directory")
        if key in self._loading:
            return Known(*key, "loading", "")
        if key in self._refused:
            return Known(*key, "unavailable", "refused: see the log")
        return Known(*key, "unavailable", "unloaded" if key in self._unloaded else "not loaded yet")


def _is_meant(key: ModelKey, name: str, version: int | None) -> bool:
    return key.name == name and version in (None, key.version)


def load_catalog(
    models_dir: Path,
    default: str,
    batcher: Batcher,
    *,
    execution_providers: list[ExecutionProvider],
    options: ServingOptions = DEFAULT_OPTIONS,
    names: Collection[str] = (),
) -> Catalog:
    """Read, verify and load every bundle of `models_dir`, of the models `names` alone if there are any, on the first
    execution provider that all of them run on.

    Raises:
        StartupError: there is no bundle, or one of them cannot be served; the message names the file.
    """
    bundles = [read_found(key, directory) for key, directory in find_bundles(models_dir, names).items()]
    if missing := set(names) - {bundle.manifest.name for bundle in bundles}:
        raise StartupError(f"VAE_MODELS names {', '.join(sorted(missing))}: not in {models_dir.absolute()}")
    if not bundles:
        raise BundleError(_what_it_holds(models_dir.absolute()))
    for provider in execution_providers:
        try:
            make = partial(Vae, batcher=batcher, options=replace(options, execution_provider=provider))
            vaes = [_made(make, bundle) for bundle in bundles]
        except ExecutionProviderError as error:
            if provider == execution_providers[-1]:
                raise
            logger.warning("%s; trying the next execution provider", error)
        else:
            break
    logger.info("execution provider: %s", provider)
    return Catalog(vaes, default, batcher, models_dir, make, names)


def _made(make: Make, bundle: Bundle) -> Vae:
    """A bundle's Vae; raises BundleError, beside what `make` does, for whatever else a broken bundle may raise."""
    try:
        return make(bundle)
    except StartupError:
        raise
    except Exception as error:
        name, version = bundle.manifest.name, bundle.manifest.version
        raise BundleError(f"{name}/{version} cannot be served: {type(error).__name__}: {error}") from error


def _what_it_holds(directory: Path) -> str:
    """Why nothing is served of a directory, and what of it might be."""
    below = [key for key in find_bundles(directory.parent) if key.name == directory.name]
    if not below:
        return f"{directory} holds no bundle: no <name>/<version>/{MANIFEST} (VAE_MODELS_DIR)"
    versions = ", ".join(str(key.version) for key in below)
    newest = directory / str(below[-1].version)
    return f"{directory} holds no <name>/<version>/{MANIFEST}, but versions of one model, {versions}: take {newest}"
