"""The command line: `python -m training train|export|evaluate|figures RECIPE`."""

from pathlib import Path
from typing import Annotated

import typer

from training.data import DataError
from training.recipe import RecipeError, load_recipe

app = typer.Typer(no_args_is_help=True, add_completion=False, help=__doc__, pretty_exceptions_enable=False)

RecipeArgument = Annotated[str, typer.Argument(help="A recipe's name in training/recipes, or the path of its file.")]
DataDir = Annotated[Path, typer.Option(envvar="VAE_DATA_DIR", help="Data sets lie here; what is absent is downloaded.")]
Runs = Annotated[Path, typer.Option(help="Checkpoints and logs lie here.")]


@app.command()
def train(
    recipe: RecipeArgument,
    data_dir: DataDir = Path("data"),
    runs: Runs = Path("runs"),
    devices: Annotated[int, typer.Option(help="Devices a node.")] = 1,
    nodes: Annotated[int, typer.Option(help="Machines; start the same command on each with torchrun.")] = 1,
    fresh: Annotated[bool, typer.Option("--fresh", help="Start anew even where a checkpoint lies.")] = False,
) -> None:
    """Train a recipe, going on from its last checkpoint."""
    from training import train as training

    folder = training.train(
        load_recipe(recipe), data_dir=data_dir, runs=runs, devices=devices, nodes=nodes, fresh=fresh
    )
    print(f"Trained: {folder}. Next: python -m training export {recipe}")


@app.command()
def export(recipe: RecipeArgument) -> None:
    """Write the bundle."""


def main() -> None:
    """Run the command line; an error a person can mend is one sentence, not a traceback."""
    try:
        app()
    except (RecipeError, DataError) as error:
        raise SystemExit(f"error: {error}") from None


if __name__ == "__main__":
    main()
