"""Export of a checkpoint as a bundle: two ONNX graphs, arrays, manifest and card.

    python -m training export mnist

The graphs are read back through the server's own `app.bundle` and `app.inference.session`, and compared with torch. A
bundle appears atomically under its name.
"""

import json
import shutil
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from app.bundle import files as bundle
from app.bundle.manifest import Array, GraphFile, Manifest
from app.maths.gaussian import Floats
from training.atomic import whole
from training.bundling.aggregate import fit_mixture
from training.bundling.conversion import ImageDecoder, ImageEncoder, check_parity, write_graph
from training.bundling.parity import BATCH_SIZES
from training.bundling.posteriors import write_posteriors
from training.card import write_card
from training.data import Split, load_dataset
from training.data.subjects import subject_of
from training.fit.module import VaeModule
from training.fit.train import load_checkpoint, run_folder
from training.offline import OfflineGraphs
from training.recipe import RECIPES, Recipe, load_recipe

WEIGHTS_LICENSE = "Apache-2.0"


def export(recipe: Recipe, *, runs: Path, models: Path, data_dir: Path) -> Path:
    """Write the bundle of `recipe`'s last checkpoint to `models/<name>/<version>`, replacing an existing one.

    Raises:
        RecipeError: there is no checkpoint, or it is of another recipe.
        DataError: the data set is missing or malformed.
        ParityError: a graph does not compute what torch computes.
    """
    checkpoint = load_checkpoint(recipe, runs, "best" if recipe.training.early_stopping_epochs else "last")
    dataset = load_dataset(recipe.data, data_dir)
    image_shape = dataset.image_shape
    module = VaeModule(recipe, channels=image_shape[0], size=image_shape[1])
    module.load_state_dict(checkpoint["state_dict"])
    encoder = ImageEncoder(module.encoder).eval()
    decoder = ImageDecoder(module.decoder, module.likelihood).eval()
    target = models / recipe.name / str(recipe.version)
    with whole(target) as directory:
        heads = ["mean", "log_std"] if recipe.stochastic else ["mean"]
        outputs = ["image", *module.likelihood.names]
        write_graph(directory / "encoder.onnx", encoder, torch.zeros(2, *image_shape, dtype=torch.uint8), heads)
        write_graph(directory / "decoder.onnx", decoder, torch.zeros(2, recipe.latent), outputs)
        for name in ("training.csv", "report.json"):
            shutil.copy(run_folder(runs, recipe) / name, directory)
        (directory / "recipe.toml").write_text(to_toml(recipe))
        classes = dataset.train.classes or subject_of(recipe.data.key).classes
        manifest = describe(directory, recipe, checkpoint, image_shape, outputs, classes)
        bundle.write_manifest(directory, manifest)
        written = bundle.read_bundle(directory)
        check_parity(written, encoder, decoder, dataset.test.images[: max(BATCH_SIZES)])
        graphs = OfflineGraphs(written)
        arrays = write_arrays(directory, graphs, dataset.train, recipe.seed)
        arrays |= write_posteriors(directory, graphs, dataset.test)
        bundle.write_manifest(directory, manifest.model_copy(update={"arrays": arrays}))
        write_card(directory)
        bundle.read_bundle(directory)
    return target


def write_arrays(directory: Path, graphs: OfflineGraphs, split: Split, seed: int) -> dict[str, Array]:
    """Write the arrays computed from the training images' posteriors: class means and the aggregated posterior."""
    posterior = graphs.encode(split.images)
    latents = posterior.draw(seed) if graphs.manifest.stochastic else posterior.mean
    mixture = fit_mixture(latents, split.labels, seed=seed)
    arrays: dict[str, NDArray[Any]] = (
        {} if split.labels is None else {"label_means": label_means(posterior.mean, split.labels)}
    )
    arrays |= {
        "aggregate_weights": mixture.weights,
        "aggregate_means": mixture.means,
        "aggregate_cholesky": mixture.cholesky,
        "aggregate_labels": mixture.labels,
    }
    return {name: bundle.write_array(directory, name, array) for name, array in arrays.items()}


def label_means(means: Floats, labels: NDArray[np.uint8]) -> Floats:
    """Mean `[labels, d]` of the posterior means `[N, d]` of each label."""
    rows = [means[labels == label].mean(axis=0, dtype=np.float64) for label in np.unique(labels)]
    return np.stack(rows).astype(np.float32)


def describe(
    directory: Path,
    recipe: Recipe,
    checkpoint: dict[str, Any],
    image_shape: tuple[int, int, int],
    outputs: list[str],
    classes: tuple[str, ...] = (),
) -> Manifest:
    """The manifest of the two graphs in `directory`, without arrays and metrics."""
    channels, height, width = image_shape
    image = {"dtype": "uint8", "shape": (None, *image_shape)}
    parameter = {"dtype": "float32", "shape": (None, *image_shape)}
    decoded = {name: image if name == "image" else parameter for name in outputs}
    latent = {"dtype": "float32", "shape": (None, recipe.latent)}
    heads = {"mean": latent, "log_std": latent} if recipe.stochastic else {"mean": latent}
    return Manifest.model_validate(
        {
            "name": recipe.name,
            "version": recipe.version,
            "description": recipe.description,
            "license": WEIGHTS_LICENSE,
            "created": datetime.now(UTC).isoformat(timespec="seconds"),
            "image": {
                "channels": channels,
                "height": height,
                "width": width,
                "mode": {1: "L", 3: "RGB"}[channels],
                "background": recipe.data.background,
                "resampling": recipe.data.resampling,
            },
            "latent": {"shape": (recipe.latent,)},
            "likelihood": "bernoulli" if "logits" in outputs else recipe.likelihood.name,
            "graphs": {
                "encoder": _graph(directory / "encoder.onnx", {"image": image}, heads),
                "decoder": _graph(directory / "decoder.onnx", {"latent": latent}, decoded),
            },
            "classes": classes,
            "training": {
                "dataset": recipe.data.key,
                "binarization": recipe.binarization,
                "recipe": _recipe_path(recipe),
                "epochs": checkpoint["epoch"] + 1,
                "seed": recipe.seed,
                "commit": checkpoint["commit"],
            },
        }
    )


def _graph(path: Path, inputs: dict[str, Any], outputs: dict[str, Any]) -> GraphFile:
    return GraphFile.model_validate(bundle.describe(path) | {"inputs": inputs, "outputs": outputs})


def _recipe_path(recipe: Recipe) -> str:
    """Path of the recipe in this repository, or else of the bundle's copy."""
    shipped = RECIPES / f"{recipe.name}.toml"
    is_shipped = shipped.exists() and load_recipe(recipe.name) == recipe
    return f"training/recipes/{shipped.name}" if is_shipped else "recipe.toml"


def to_toml(recipe: Recipe) -> str:
    """The recipe as TOML with all defaults, so that later changes of defaults do not change its meaning."""
    values = recipe.model_dump(mode="json", exclude_none=True)
    tables = {name: values.pop(name) for name, value in list(values.items()) if isinstance(value, dict)}
    parts = [_lines(values), *(f"[{name}]\n{_lines(table)}" for name, table in tables.items() if table)]
    return "\n".join(parts)


def _lines(table: dict[str, Any]) -> str:
    # Strings, numbers and booleans are the same in JSON and TOML.
    return "".join(f"{key} = {json.dumps(value, ensure_ascii=False)}\n" for key, value in table.items())
