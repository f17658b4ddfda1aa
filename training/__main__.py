"""Train models, export them as bundles, evaluate and reduce bundles, import other models.

From a recipe to a bundle: train, export, evaluate, figures.
"""

from pathlib import Path
from typing import Annotated

import typer

from app.errors import VaeError
from training.importing.command import import_
from training.reducing.options import GraphName, Precision, ReduceOptions

app = typer.Typer(no_args_is_help=True, add_completion=False, help=__doc__, pretty_exceptions_enable=False)

RecipeArgument = Annotated[str, typer.Argument(help="A recipe's name in training/recipes, or the path of its file.")]
Target = Annotated[str, typer.Argument(help="A bundle's directory, such as models/mnist/1, or a recipe.")]
DataDir = Annotated[
    Path, typer.Option(envvar="VAE_DATA_DIR", help="Folder of the data sets; missing ones are downloaded.")
]
Runs = Annotated[Path, typer.Option(help="Folder of checkpoints and logs.")]
Models = Annotated[Path, typer.Option(help="Folder of the bundles.")]


# Each command imports its modules itself, so that the help is fast and evaluating a bundle needs no torch.


@app.command()
def train(
    recipe: RecipeArgument,
    data_dir: DataDir = Path("data"),
    runs: Runs = Path("runs"),
    models: Models = Path("models"),
    accelerator: Annotated[str, typer.Option(help="Device to train on: auto, cpu or gpu.")] = "auto",
    devices: Annotated[int, typer.Option(help="Devices per machine.")] = 1,
    nodes: Annotated[int, typer.Option(help="Machines; start the same command on each with torchrun.")] = 1,
    compile_nets: Annotated[
        bool,
        typer.Option(
            "--compile", help="Compile the nets first. It takes a minute, and pays off in long trainings on a GPU."
        ),
    ] = False,
    fresh: Annotated[bool, typer.Option("--fresh", help="Start again even if there is a checkpoint.")] = False,
) -> None:
    """Train a recipe, resuming from its last checkpoint."""
    from lightning.pytorch.utilities import rank_zero_only

    from training.fit.train import Hardware, train
    from training.recipe import load_recipe

    hardware = Hardware(accelerator, devices, nodes, compile_nets)
    folder = train(load_recipe(recipe), data_dir=data_dir, runs=runs, models=models, hardware=hardware, fresh=fresh)
    rank_zero_only(print)(f"Trained: {folder}. Next: python -m training export {recipe}")


@app.command()
def export(
    recipe: RecipeArgument, data_dir: DataDir = Path("data"), runs: Runs = Path("runs"), models: Models = Path("models")
) -> None:
    """Write the bundle of a recipe's last checkpoint, and compare it with torch."""
    from training.bundling.export import export
    from training.recipe import load_recipe

    bundle = export(load_recipe(recipe), runs=runs, models=models, data_dir=data_dir)
    print(f"Exported: {bundle}. Next: python -m training evaluate {bundle}")


@app.command()
def evaluate(
    target: Target,
    data_dir: DataDir = Path("data"),
    models: Models = Path("models"),
    k: Annotated[int, typer.Option(min=1, help="Draws per image; the NLL is the IWAE-k bound.")] = 128,
    images: Annotated[
        int | None,
        typer.Option(
            min=1, help="Measure only the first images. The result is kept only as a tighter bound, with a larger k."
        ),
    ] = None,
    seed: Annotated[int, typer.Option(min=0, max=2**31 - 1, help="Seed of pixels and latents.")] = 0,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Measure and print, but write nothing.")] = False,
) -> None:
    """Measure a bundle on the test images, and write the metrics into its manifest and card."""
    from rich import print as show

    from app.bundle.files import read_manifest
    from training.evaluate import evaluate, metric_table

    bundle = _bundle(target, models)
    metrics = evaluate(bundle, data_dir=data_dir, k=k, images=images, seed=seed, write=not dry_run)
    show(metric_table(metrics, read_manifest(bundle)))


@app.command()
def figures(target: Target, data_dir: DataDir = Path("data"), models: Models = Path("models")) -> None:
    """Draw a bundle's figures, and show them on its card."""
    from training.figures import figures

    for path in figures(_bundle(target, models), data_dir=data_dir, models=models):
        print(path)


@app.command()
def posteriors(target: Target, data_dir: DataDir = Path("data"), models: Models = Path("models")) -> None:
    """Add held-out posterior means, classes and principal axes to a bundle that was exported without them."""
    from training.bundling.posteriors import posteriors

    for name, array in posteriors(_bundle(target, models), data_dir=data_dir).items():
        print(f"{name} {list(array.shape)}")


@app.command()
def reduce(
    target: Target,
    precision: Annotated[
        Precision,
        typer.Option(
            help="fp16-stored: half the size on disk. fp16: half precision, used on CUDA only. "
            "int8: 8-bit integers, used on CPUs only."
        ),
    ],
    only: Annotated[GraphName | None, typer.Option(help="Reduce the encoder or the decoder alone.")] = None,
    bound_nats: Annotated[float, typer.Option(help="Maximum change of -ELBO, in nats per image.")] = 0.1,
    bound_psnr: Annotated[
        float, typer.Option(help="Maximum change of PSNR, in dB, for bundles without a likelihood.")
    ] = 0.1,
    faster: Annotated[float, typer.Option(help="Minimum speedup of int8, for one row and for batches.")] = 1.2,
    images: Annotated[
        Path | None,
        typer.Option(help="Images to measure with: a folder, npz or IDX file. Default: the bundle's data set."),
    ] = None,
    count: Annotated[int, typer.Option(min=2, help="Maximum number of images to measure.")] = 2000,
    seed: Annotated[int, typer.Option(min=0, max=2**31 - 2, help="Seed of pixels and latents.")] = 0,
    version: Annotated[int | None, typer.Option(min=1, help="Default: the next free version.")] = None,
    replace: Annotated[bool, typer.Option("--replace", help="Replace an existing version.")] = False,
    data_dir: DataDir = Path("data"),
    models: Models = Path("models"),
) -> None:
    """Write a new version of a bundle with smaller weights, if the metrics stay within bounds."""
    from training.card import change_in_words, speed_in_words
    from training.reducing.reduce import reduce

    options = ReduceOptions(
        precision=precision,
        only=only,
        bound_nats=bound_nats,
        bound_psnr=bound_psnr,
        faster=faster,
        images=images,
        count=count,
        seed=seed,
        version=version,
        replace=replace,
    )
    bundle, reduced = reduce(_bundle(target, models), options, data_dir=data_dir)
    print(
        f"{change_in_words(reduced)}, within {reduced.bound:g}; {reduced.size / reduced.size_before:.0%} of the size;"
    )
    print(f"times as fast alone and together: {speed_in_words(reduced)}")
    print(f"Reduced: {bundle}. Next: see its README.md, then VAE_MODELS_DIR={bundle.parent.parent} python -m app")


app.command("import")(import_)


def _bundle(target: str, models: Path) -> Path:
    """The bundle's directory: `target` itself, or the directory of the recipe `target`'s bundle."""
    path = Path(target)
    if path.suffix != ".toml" and (path.is_dir() or len(path.parts) > 1):
        return path
    from training.recipe import load_recipe

    recipe = load_recipe(target)
    return models / recipe.name / str(recipe.version)


def main() -> None:
    """Run the command line. A user's error is printed as one sentence on stderr, without a traceback."""
    try:
        app()
    except ModuleNotFoundError as error:
        if error.name is None or error.name.partition(".")[0] in ("app", "training"):
            raise
        extras = "cpu,train,diffusers" if error.name.partition(".")[0] == "diffusers" else "cpu,train"
        raise SystemExit(f"error: {error.name} is absent: install the extras, pip install -e '.[{extras}]'") from None
    except VaeError as error:
        raise SystemExit(f"error: {error}") from None


if __name__ == "__main__":
    main()
