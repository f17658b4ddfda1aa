"""The charts show the log's numbers and the dimensions' own, and fit what they show."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.colors import to_rgb

from tests.training.linear import Linear
from training.figures.charts import draw_active_units, draw_rate_distortion, draw_training
from training.figures.plots import PALETTE
from training.figures.scene import Scene, load_scene


def load(folder: Path, **options: Any) -> Scene:
    return load_scene(Linear(**options).write(folder), data_dir=folder, models=folder / "models")


def log(rates: list[float], distortions: list[float], watched: str = "test") -> dict[str, list[float]]:
    epochs = [float(epoch) for epoch in range(1, len(rates) + 1)]
    terms = {"reconstruction": distortions, "kl": rates, "negative_elbo": list(np.add(rates, distortions))}
    return {"epoch": epochs} | {f"{s}/{name}": line for s in ("train", watched) for name, line in terms.items()}


@pytest.mark.parametrize(
    ("options", "titles"),
    [
        ({"stochastic": False}, ["Reconstruction"]),
        ({}, ["Reconstruction", "KL", "Negative ELBO"]),
        ({"extra_columns": ("negative_iwae",)}, ["Reconstruction", "KL", "Negative ELBO", "Negative IWAE bound"]),
        ({"likelihood": "bernoulli"}, ["Reconstruction (grey cross entropy)", "KL", "Sum: the loss"]),
    ],
    ids=["autoencoder", "elbo", "iwae", "grey"],
)
def test_the_training_has_a_panel_a_term(tmp_path: Path, options: dict[str, Any], titles: list[str]) -> None:
    assert [axes.get_title() for axes in draw_training(load(tmp_path, **options)).axes] == titles


@pytest.mark.parametrize("watched", ["test", "validation"])
def test_the_training_names_the_split_that_was_watched(tmp_path: Path, watched: str) -> None:
    scene = load(tmp_path, watched=watched)
    for axes, term in zip(draw_training(scene).axes, ("reconstruction", "kl", "negative_elbo"), strict=True):
        lines = {str(line.get_label()): list(line.get_ydata()) for line in axes.get_lines()}
        assert lines == {split: scene.log[f"{split}/{term}"] for split in ("train", watched)}


def test_rate_and_distortion_are_an_epoch_a_point(tmp_path: Path) -> None:
    scene = load(tmp_path, watched="validation")
    figure = draw_rate_distortion(scene)
    (axes,) = figure.axes
    for line, split in zip(axes.get_lines()[-2:], ("train", "validation"), strict=True):
        assert list(line.get_xdata()) == scene.log[f"{split}/kl"]
        assert list(line.get_ydata()) == scene.log[f"{split}/reconstruction"]
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["train", "validation", "equal negative ELBO"]


def test_faint_lines_have_an_equal_sum_and_say_which(tmp_path: Path) -> None:
    (axes,) = draw_rate_distortion(load(tmp_path)).axes
    faint = axes.get_lines()[:-2]
    assert len(faint) > 2
    sums = [np.add(line.get_xdata(), line.get_ydata()) for line in faint]
    assert all(total[0] == pytest.approx(total[1]) for total in sums)
    assert [text.get_text() for text in axes.texts][: len(sums)] == [f"{total[0]:g}" for total in sums]


def test_the_later_epochs_fill_the_picture_and_the_last_is_numbered(tmp_path: Path) -> None:
    rates, distortions = [90.0, 5.0, *np.linspace(25, 27, 18)], [900.0, 300.0, *np.linspace(66, 60, 18)]
    (axes,) = draw_rate_distortion(replace(load(tmp_path), log=log(rates, distortions))).axes
    assert axes.get_xlim()[0] > 24
    assert axes.get_xlim()[1] < 28
    assert 58 < axes.get_ylim()[0] < 60 < axes.get_ylim()[1] < 67
    numbers = {text.get_text(): text.xy for text in axes.texts if text.xy in set(zip(rates, distortions, strict=True))}
    assert set(numbers) == {"5", "10", "epoch 20"}
    assert numbers["epoch 20"] == (27, 60)


def test_a_single_epoch_has_a_picture(tmp_path: Path) -> None:
    scene = replace(load(tmp_path), log=log([0.0], [10.0]))
    (axes,) = draw_rate_distortion(scene).axes
    assert axes.get_xlim()[0] < 0 < axes.get_xlim()[1]
    assert "epoch 1" in [text.get_text() for text in axes.texts]


def test_active_units_are_those_of_enough_variance_by_falling_kl(tmp_path: Path) -> None:
    kl, variance = np.array([0.3, 2.0, 0.0], np.float32), np.array([0.02, 0.9, 0.0], np.float32)
    figure = draw_active_units(replace(load(tmp_path), kl=kl, variance=variance))
    above, below = figure.axes
    assert above.get_title() == "2 of 3 dimensions active"
    assert [bar.get_height() for bar in above.patches] == pytest.approx([2.0, 0.3, 0.0])
    assert [label.get_text() for label in below.get_xticklabels()] == ["1", "0", "2"]
    active = [np.allclose(bar.get_facecolor()[:3], to_rgb(PALETTE[0])) for bar in above.patches]
    assert active == [True, True, False]
    low, high = below.get_ylim()
    heights = below.collections[0].get_offsets()[:, 1]
    assert low < heights.min() < 1e-5, "zero has its place at the foot"
    assert heights.max() < high


def test_many_dimensions_are_not_numbered_one_by_one(tmp_path: Path) -> None:
    assert "rank" in draw_active_units(load(tmp_path, latent=60)).axes[1].get_xlabel()
