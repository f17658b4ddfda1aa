"""The served models: found at start, looked up by name and version, loaded, unloaded and reloaded at run time.

A name in a request is never used as a path, but looked up among the bundles of the models directory.
"""

import asyncio
import logging
import os
from collections.abc import Collection, Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Literal

from app.bundle.directory import find_bundles, read_found
from app.bundle.files import Bundle
from app.bundle.manifest import MANIFEST, ModelKey
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
from app.vae.loading import Loader, LoadVae
from app.vae.vae import DEFAULT_OPTIONS, Vae

logger = logging.getLogger(__name__)

_GONE = "gone from the models directory"


@dataclass(frozen=True)
class Known:
    """A version of a model that is served or lies in the models directory."""

    name: str
    version: int
    state: Literal["ready", "loading", "unavailable"]
    reason: str
    """Why the version is not ready, or differs from the directory; empty if neither."""


@dataclass(frozen=True)
class Reload:
    """What a reload changed, each list ascending. `loaded` and `kept` together are served now."""

    loaded: list[ModelKey]
    """Versions that are new, or changed and replaced."""
    unloaded: list[ModelKey]
    """Versions that are gone from the directory."""
    kept: list[ModelKey]
    """Versions that are served as before."""
    refused: list[ModelKey]
    """Broken versions in the directory. A version that was served is still served, and in `kept`."""


_LISTING_SECONDS = 2.0
"""Maximum seconds that a list of the models waits for the models directory."""


class Catalog:
    """The served models, by name, then by version, and the batcher that they share.

    Bundles are read and warmed up in threads, one change after another, each within a deadline. The served models are
    then replaced at once, on the event loop, so that a request finds the old or the new model and never waits. Use it
    on one event loop.
    """

    def __init__(
        self,
        vaes: list[Vae],
        default: str,
        batcher: Batcher,
        models_dir: Path,
        loader: Loader,
        names: Collection[str] = (),
    ) -> None:
        """`names` are the models of the directory to serve; all if empty.

        Raises:
            StartupError: there are several models, and `default` is not among them.
        """
        self.batcher, self._models_dir, self._loader, self._names = batcher, models_dir, loader, names
        self._vaes: dict[str, dict[int, Vae]] = {}
        self._serve({vae.manifest.key: vae for vae in vaes})
        if default not in self._vaes and len(self._vaes) == 1:
            default = next(iter(self._vaes))
        if default not in self._vaes:
            raise StartupError(f"VAE_DEFAULT_MODEL is {default}, but the models are {', '.join(self._vaes)}")
        self.default = default
        self._changing = asyncio.Lock()
        self._listing: asyncio.Task[dict[ModelKey, Path]] | None = None
        """The latest reading of the models directory for `known`, which may hang: all requests share it."""
        self._loading: set[ModelKey] = set()
        self._is_bundle = os.path.lexists(models_dir / MANIFEST)
        self._refused: set[ModelKey] = set()
        self._gone: set[ModelKey] = set()
        """Served versions that the last reload did not find in the directory."""
        self._unloaded: set[ModelKey] = set()
        """Versions that were unloaded: `reload` skips them until they are loaded, or their directory is gone."""
        self.refusals = 0
        """Number of times that a bundle, or the whole directory, was refused since the start."""

    def __iter__(self) -> Iterator[Vae]:
        return (vae for versions in self._vaes.values() for vae in versions.values())

    def find(self, name: str | None = None, version: int | None = None) -> Vae:
        """The model `name` (None: the default one) in `version` (None: the newest).

        Raises:
            UnknownModel: there is no such model or version.
        """
        versions = self._vaes.get(self.default if name is None else name)
        if versions is None:
            raise UnknownModel("no model of this name; GET /models lists them")
        vae = versions.get(max(versions) if version is None else version)
        if vae is None:
            raise UnknownModel("this model has no such version; GET /models lists them")
        return vae

    def versions(self, name: str) -> list[int]:
        """The served versions of a model, ascending."""
        return sorted(self._vaes[name])

    async def known(self) -> list[Known]:
        """Every version of every model that is served or lies in the models directory, ascending; if that cannot be
        read in time, every served one."""
        if self._listing is None or self._listing.done():
            self._listing = asyncio.create_task(self._loader.run(self._held, self._models_dir))
            self._listing.add_done_callback(lambda task: task.cancelled() or task.exception())  # nobody may await it
        try:
            async with asyncio.timeout(_LISTING_SECONDS):
                held = await asyncio.shield(self._listing)
        except (BundleError, TimeoutError) as error:
            logger.error("the models directory cannot be read: %s", error or "it takes too long")
            held = dict.fromkeys(self._served, self._models_dir)
        served = self._served
        return [self._describe(key, key in served, key in held) for key in sorted(served.keys() | held.keys())]

    @property
    def broken(self) -> list[ModelKey]:
        """Versions, ascending, that were broken in the models directory when they were last read."""
        return sorted(self._refused - self._unloaded)

    def reason(self, key: ModelKey) -> str:
        """Why a served version differs from the models directory, as last read; empty if it does not."""
        if key in self._gone:
            return _GONE
        return "broken in the models directory: see the log" if key in self._refused else ""

    async def load(self, name: str, version: int | None = None) -> list[Vae]:
        """Serve `version` of `name` (None: every version) from the models directory.

        Either all of them are served or, if a bundle is broken, nothing changes. Unchanged versions are kept, but their
        files are verified.

        Raises:
            UnknownModel: the models directory has no such model or version.
            BundleRefused: a bundle cannot be served; the versions served before are still served.
        """
        async with self._changing:
            held = await self._find()
            chosen = {key: path for key, path in held.items() if _matches(key, name, version)}
            if not chosen:
                raise UnknownModel("the models directory has no such model or version")
            vaes = await self._read(chosen)
            if self._refused & chosen.keys():
                raise BundleRefused("the bundle cannot be served, see the log; versions served before are still served")
            self._unloaded -= chosen.keys()
            self._gone -= chosen.keys()
            self._serve(self._served | vaes)
            return list(vaes.values())

    async def unload(self, name: str, version: int | None = None) -> list[ModelKey]:
        """Stop serving `version` of `name` (None: every version), and return what was served.

        Accepted requests finish. `reload` skips the version until it is loaded again.

        Raises:
            UnknownModel: it is neither served nor in the models directory.
            Conflict: no version of the default model would be left.
            BundleRefused: the models directory cannot be read in time.
        """
        async with self._changing:
            held, served = await self._find(), self._served
            gone = {key for key in held.keys() | served.keys() if _matches(key, name, version)}
            if not gone:
                raise UnknownModel("no such model or version, served or in the models directory")
            left = {key: vae for key, vae in served.items() if key not in gone}
            if not any(key.name == self.default for key in left):
                raise Conflict("the default model must keep at least one version")
            self._unloaded |= gone
            self._serve(left)
            return sorted(served.keys() & gone)

    async def reload(self) -> Reload:
        """Serve what is in the models directory now: load new and changed bundles, unload removed ones.

        All files are verified, also those of unchanged versions. A broken bundle is refused, and the version that was
        served stays. So does the newest version of the default model if it would have none left.

        Raises:
            BundleRefused: the directory has no bundle at all, or cannot be read in time; nothing changes.
        """
        async with self._changing:
            held = await self._find()
            if not held:
                self.refusals += 1
                self._gone = set(self._served)
                raise BundleRefused("the models directory holds no bundle; versions served before are still served")
            self._unloaded &= held.keys()
            self._refused &= held.keys()
            before = self._served
            staying = {key: vae for key, vae in before.items() if key in held}
            vaes = staying | await self._read({key: path for key, path in held.items() if key not in self._unloaded})
            if not any(key.name == self.default for key in vaes):
                last = max(key for key in before if key.name == self.default)
                vaes[last] = before[last]
            self._serve(vaes)
            self._gone = vaes.keys() - held.keys()
            return Reload(
                loaded=sorted(key for key in vaes if vaes[key] is not before.get(key)),
                unloaded=sorted(before.keys() - vaes.keys()),
                kept=sorted(key for key in vaes if vaes[key] is before.get(key)),
                refused=self.broken,
            )

    def check_ready(self) -> None:
        """Raise if requests are not accepted.

        Raises:
            Overloaded: the server is stopping.
        """
        if self.batcher.admission.is_closed:
            raise Overloaded("the server is stopping")

    @property
    def _served(self) -> dict[ModelKey, Vae]:
        return {vae.manifest.key: vae for vae in self}

    def _serve(self, vaes: dict[ModelKey, Vae]) -> None:
        """Serve exactly these models from now on."""
        before, table = self._served, dict[str, dict[int, Vae]]()
        for key in sorted(vaes):
            table.setdefault(key.name, {})[key.version] = vaes[key]
            if vaes[key] is not before.get(key):
                logger.info("loaded %s version %s", *key)
        for key in before.keys() - vaes.keys():
            logger.info("unloaded %s version %s", *key)
        self._vaes = table

    def _held(self) -> dict[ModelKey, Path]:
        """The bundles in the models directory. If it is a single bundle without a valid manifest, it counts as the
        served one, which reading it then refuses."""
        try:
            held = find_bundles(self._models_dir, self._names)
        except BundleError as error:
            if not self._is_bundle:  # else reading it logs the same
                logger.error("refused: %s", error)
            held = {}
        if not held and self._is_bundle and self._models_dir.is_dir():
            return dict.fromkeys(self._served, self._models_dir)
        return held

    async def _find(self) -> dict[ModelKey, Path]:
        """`_held` in a thread; raises BundleRefused if that takes too long."""
        try:
            return await self._loader.run(self._held, self._models_dir)
        except BundleError as error:
            logger.error("refused: %s", error)
            self.refusals += 1
            raise BundleRefused("the models directory cannot be read, see the log; nothing has changed") from None

    async def _read(self, chosen: dict[ModelKey, Path]) -> dict[ModelKey, Vae]:
        """Load bundles and leave out the refused ones; an unchanged bundle keeps its served object."""
        served = self._served
        self._loading = set(chosen)
        try:
            read = {key: await self._vae(key, chosen[key], served.get(key)) for key in chosen}
        finally:
            self._loading = set()
        vaes = {key: vae for key, vae in read.items() if vae is not None}
        refused = chosen.keys() - vaes.keys()
        self.refusals += len(refused)
        self._refused = (self._refused - chosen.keys()) | refused
        return vaes

    async def _vae(self, key: ModelKey, directory: Path, served: Vae | None) -> Vae | None:
        """Verify one bundle in a thread, and load it unless it is unchanged; None if it cannot be served."""

        def load() -> Vae:
            bundle = read_found(key, directory)
            if served is not None and bundle.manifest.digest == served.digest:
                return served
            return self._loader.load_vae(bundle)

        try:
            return await self._loader.run(load, directory)
        except StartupError as error:
            logger.error("refused: %s%s", error, "; the version that is served stays" if served is not None else "")
        except Exception:  # any other error of a broken bundle is logged, and the server goes on
            logger.exception("refused: %s", directory)
        return None

    def _describe(self, key: ModelKey, is_served: bool, is_held: bool) -> Known:
        if is_served:
            return Known(*key, "ready", self.reason(key) if is_held else _GONE)
        if key in self._loading:
            return Known(*key, "loading", "")
        if key in self._refused:
            return Known(*key, "unavailable", "refused: see the log")
        return Known(*key, "unavailable", "unloaded" if key in self._unloaded else "not loaded yet")


def _matches(key: ModelKey, name: str, version: int | None) -> bool:
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
    """Read, verify and load the bundles of `models_dir`; only the models in `names`, unless it is empty.

    All use the first execution provider that works for all of them.

    Raises:
        StartupError: there is no bundle, or one cannot be served; the message names the file.
    """
    found = find_bundles(models_dir, names)
    loader = Loader(partial(Vae, batcher=batcher, options=options), options.load_seconds)
    bundles = [loader.wait_for(partial(read_found, key, path), path) for key, path in found.items()]
    if missing := set(names) - {bundle.manifest.name for bundle in bundles}:
        raise StartupError(f"VAE_MODELS names {', '.join(sorted(missing))}: not in {models_dir.absolute()}")
    if not bundles:
        raise BundleError(_why_empty(models_dir.absolute()))
    for provider in execution_providers:
        try:
            loader.load_vae = partial(Vae, batcher=batcher, options=replace(options, execution_provider=provider))
            vaes = [
                loader.wait_for(partial(_loaded, loader.load_vae, bundle), path)
                for bundle, path in zip(bundles, found.values(), strict=True)
            ]
        except ExecutionProviderError as error:
            if provider == execution_providers[-1]:
                raise
            logger.warning("%s; trying the next execution provider", error)
        else:
            break
    logger.info("execution provider: %s", provider)
    return Catalog(vaes, default, batcher, models_dir, loader, names)


def _loaded(load_vae: LoadVae, bundle: Bundle) -> Vae:
    """Load a bundle; any error that a broken bundle raises besides StartupError becomes a BundleError."""
    try:
        return load_vae(bundle)
    except StartupError:
        raise
    except Exception as error:
        name, version = bundle.manifest.name, bundle.manifest.version
        raise BundleError(f"{name}/{version} cannot be served: {type(error).__name__}: {error}") from error


def _why_empty(directory: Path) -> str:
    """The error for a directory without bundles; it suggests a directory that might be meant."""
    below = [key for key in find_bundles(directory.parent) if key.name == directory.name]
    if not below:
        return f"{directory} holds no bundle: no <name>/<version>/{MANIFEST} (VAE_MODELS_DIR)"
    versions = ", ".join(str(key.version) for key in below)
    newest = directory / str(below[-1].version)
    return f"{directory} holds no <name>/<version>/{MANIFEST}, but versions of one model, {versions}: take {newest}"
