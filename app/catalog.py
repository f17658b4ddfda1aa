"""The served models: discovered at start, looked up by name and version. A name from outside is never a path."""

import logging
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from app.batcher import Batcher
from app.bundle import MANIFEST, Bundle, read_bundle
from app.errors import BundleError, ExecutionProviderError, StartupError, UnknownModel
from app.session import ExecutionProvider
from app.vae import Vae

logger = logging.getLogger(__name__)


class Catalog:
    """The served models, by name, then by version, and the batcher that they share."""

    def __init__(self, vaes: list[Vae], default: str, batcher: Batcher) -> None:
        """Raises StartupError where `default` is not among several models."""
        self._batcher = batcher
        self._vaes: dict[str, dict[int, Vae]] = {}
        for vae in sorted(vaes, key=lambda vae: (vae.manifest.name, vae.manifest.version)):
            self._vaes.setdefault(vae.manifest.name, {})[vae.manifest.version] = vae
        if default not in self._vaes and len(self._vaes) == 1:
            default = next(iter(self._vaes))
        if default not in self._vaes:
            raise StartupError(f"VAE_DEFAULT_MODEL is {default}, but the models are {', '.join(self._vaes)}")
        self.default = default

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

    @property
    def queued_rows(self) -> int:
        """Rows that wait for a slot."""
        return self._batcher.queued_rows

    @property
    def ready(self) -> bool:
        """Whether requests are taken."""
        return not self._batcher.closed

    async def close(self) -> None:
        """Take no more requests, and wait until all accepted ones have ended."""
        await self._batcher.close()


def load_catalog(
    models_dir: Path,
    default: str,
    batcher: Batcher,
    *,
    execution_providers: list[ExecutionProvider],
    threads: int,
    queue_seconds: float = 30,
) -> Catalog:
    """Read, verify and load every bundle of `models_dir`, on the first execution provider that all of them run on.

    `models_dir` may be one bundle itself, whatever it is called.

    Raises:
        StartupError: there is no bundle, or one of them cannot be served; the message names the file.
    """
    is_bundle = (models_dir / MANIFEST).is_file()
    bundles = [read_bundle(models_dir)] if is_bundle else [_read(directory) for directory in _directories(models_dir)]
    for provider in execution_providers:
        try:
            load = partial(Vae, execution_provider=provider, threads=threads, queue_seconds=queue_seconds)
            vaes = [load(bundle, batcher) for bundle in bundles]
        except ExecutionProviderError as error:
            if provider == execution_providers[-1]:
                raise
            logger.warning("%s; trying the next execution provider", error)
        else:
            break
    logger.info("execution provider: %s", provider)
    for vae in vaes:
        logger.info("loaded %s version %s", vae.manifest.name, vae.manifest.version)
    return Catalog(vaes, default, batcher)


def _directories(models_dir: Path) -> list[Path]:
    directories = sorted(path for path in models_dir.glob("[!.]*/[1-9]*") if path.is_dir())
    if not directories:
        raise BundleError(f"{models_dir} holds no bundle: no <name>/<version>/{MANIFEST} (VAE_MODELS_DIR)")
    return directories


def _read(directory: Path) -> Bundle:
    bundle = read_bundle(directory)
    name, version = bundle.manifest.name, str(bundle.manifest.version)
    if (name, version) != (directory.parent.name, directory.name):
        raise BundleError(f"{directory / MANIFEST} is of {name} {version}, not of the directory it lies in")
    return bundle
