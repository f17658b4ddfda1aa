"""The card's section on the training: objective, cost, and the commands to repeat it."""

import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from app.bundle.manifest import Manifest, Reduced
from training.bundling.record import read_log, read_recipe, read_report, watched
from training.data.subjects import subject_of

Log = dict[str, list[float]]

ROOT = Path(__file__).parents[2]

GREY = """\
The training minimised the cross entropy with grey values, as many tutorials do. That is no likelihood: the values in
`training.csv` and in the figures of the training compare with nothing but each other."""

GREY_NLL = " The NLL above was measured on\nbinarized {many}, which the model was not trained on."


def training_section(directory: Path, manifest: Manifest) -> Iterator[str]:
    """The paragraphs of the card's section on the training.

    Raises:
        BundleError: the bundle has no recipe or no log.
    """
    recipe, subject = read_recipe(directory), subject_of(manifest.training.dataset)
    log = read_log(directory / "training.csv")
    yield " ".join([_run(recipe, manifest), *_cost(directory, log)])
    yield objective_in_words(recipe)
    if is_grey(recipe):
        yield GREY + (GREY_NLL.format(many=subject.many) if "nll" in manifest.metrics else "")
    last = _last(log, manifest)
    yield f"`recipe.toml` is the whole recipe, `training.csv` the loss terms of every epoch {last}. To do it again:"
    yield "```sh\n" + "\n".join(f"python -m training {step}" for step in _steps(recipe, manifest)) + "\n```"


def _run(recipe: dict[str, Any], manifest: Manifest) -> str:
    training, start = manifest.training, recipe.get("training", {}).get("start")
    commit = f", at commit `{training.commit}`" if training.commit else ""
    began = f" The training starts from the weights of `{start}`." if start else ""
    return (
        f"Epochs of {subject_of(training.dataset).title}: {training.epochs}, with seed {training.seed}{commit}.{began}"
    )


def _cost(directory: Path, log: Log) -> Iterator[str]:
    """Sentences on time and device, if the bundle has a report, and on skipped steps, if there were any."""
    report = read_report(directory)
    if report is not None:
        epochs, now = report["epochs"], report.get("epochs_now", report["epochs"])
        what = "The training" if now == epochs else f"Its last {now} epochs"
        yield (
            f"{what} took {duration(report['seconds'])} on {report['device']}, at {report['images_per_second']:,.0f} "
            f"images a second; {report['parameters']:,} parameters."
        )
    skipped = sum(log.get("train/skipped_steps", []))
    if skipped:
        yield f"Steps skipped for the size of their gradient: {skipped:.0f}."


def duration(seconds: float) -> str:
    """`1 h 12 min`, `3 min` or `45 s`."""
    minutes = round(seconds / 60)
    if seconds < 60:
        return f"{seconds:.0f} s"
    return f"{minutes // 60} h {minutes % 60} min" if minutes >= 60 else f"{minutes} min"


def objective_in_words(recipe: dict[str, Any]) -> str:
    """The objective, and how to read the metrics of models trained with it."""
    objective = recipe.get("objective", {})
    name, beta, free = objective.get("name", "elbo"), objective.get("beta", 1), objective.get("free_bits", 0)
    if name == "autoencoder":
        return "The objective is the reconstruction alone: there is no posterior, no KL, and no bound on log p(x)."
    if name == "iwae":
        return (
            f"The objective is the IWAE bound with {objective['k']} draws an image, the encoder's gradient doubly "
            "reparameterised (DReG). Judge the model by its NLL: its ELBO is loose by design."
        )
    spared = f" {free:g} nats of KL a dimension cost nothing in training, but count in all values here." if free else ""
    if beta != 1:
        return (
            f"The objective is the reconstruction plus {beta:g} times the KL (a beta-VAE), which is no bound on "
            f"log p(x). All values here weigh the KL with 1, for which the model was not trained.{spared}"
        )
    loss = "reconstruction plus the KL" if is_grey(recipe) else "negative ELBO, an upper bound on -log p(x)"
    return f"The objective is the {loss}.{spared}"


def is_grey(recipe: dict[str, Any]) -> bool:
    """Whether the reconstruction is a cross entropy with gray values."""
    return bool(recipe.get("likelihood", {}).get("name") == "grey_cross_entropy")


def _last(log: Log, manifest: Manifest) -> str:
    """The exported epoch's loss on both splits."""
    split, epoch = watched(log), manifest.training.epochs
    row = log["epoch"].index(epoch) if epoch in log["epoch"] else -1
    train, held_out = (log[f"{name}/negative_elbo"][row] for name in ("train", split))
    return f"(epoch {log['epoch'][row]:.0f}: {train:.3f} nats in training, {held_out:.3f} on the {split} split)"


def _steps(recipe: dict[str, Any], manifest: Manifest) -> Iterator[str]:
    reductions = sorted(manifest.reduced.values(), key=lambda reduced: reduced.source)
    exported = f"models/{manifest.name}/{reductions[0].source if reductions else manifest.version}"
    name = manifest.name if _is_shipped(recipe, manifest) else f"{exported}/recipe.toml"
    yield from (f"train {name}", f"export {name}", f"evaluate {exported}", f"figures {exported}")
    yield from (f"reduce models/{manifest.name}/{made.source} {_reduction(made, manifest)}" for made in reductions)


def _reduction(made: Reduced, manifest: Manifest) -> str:
    options = f"--precision {made.precision}"
    if made.precision != "fp16-stored":
        graphs = manifest.graphs
        options += " --only encoder" if made.decoder.file == graphs.decoder.file else ""
        options += " --only decoder" if made.encoder.file == graphs.encoder.file else ""
    options += f" --bound-{'nats' if made.measure == 'negative_elbo' else 'psnr'} {made.bound:g}"
    return options + (f" --version {made.source} --replace" if made.source == manifest.version else "")


def _is_shipped(recipe: dict[str, Any], manifest: Manifest) -> bool:
    """Whether this repository's recipe of the same name is the bundle's."""
    shipped = ROOT / "training" / "recipes" / f"{manifest.name}.toml"
    return shipped.exists() and _contains(recipe, tomllib.loads(shipped.read_text()))


def _contains(whole: Any, part: Any) -> bool:
    """Whether `whole` contains every value of `part`, at any depth."""
    if isinstance(part, dict):
        return isinstance(whole, dict) and all(name in whole and _contains(whole[name], part[name]) for name in part)
    return bool(whole == part)
