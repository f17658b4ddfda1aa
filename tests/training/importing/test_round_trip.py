"""The round trip: wrong answers are seen, right ones are left alone, and the bundle tells of it."""

import gzip
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from app.bundle.files import read_manifest
from tests.conftest import DATA, Pixels
from tests.training.importing.foreign import LATENT, Linear, bring, halving, read, save
from training.errors import ImportRefused
from training.importing.checks.latents import PATIENCE_SECONDS, LatentInfo
from training.importing.checks.samples import read_sample_file
from training.importing.options import RANGES, PixelRange
from training.importing.report import figures, warnings


@pytest.mark.parametrize("true", RANGES, ids=str)
@pytest.mark.parametrize("told", RANGES[:2], ids=str)  # told 0,255, a linear map would give back the same image
def test_a_wrong_range_is_refused_with_the_right_one(
    linear: Linear, sample_file: Path, tmp_path: Path, true: PixelRange, told: PixelRange
) -> None:
    foreign = linear.with_habits(low=true.low, high=true.high)
    source = save(tmp_path, foreign.encoder(), foreign.decoder())
    if true == told:
        assert (
            bring(source, tmp_path, sample_file, range=told, output="image").round_trip.comparison.better_options
            is None
        )
        return
    with pytest.raises(ImportRefused, match=r"pass that, or --force") as caught:
        bring(source, tmp_path, sample_file, range=told, output="image")
    assert f"with --range {true}" in str(caught.value)
    forced = bring(source, tmp_path, sample_file, range=told, output="image", force=True)
    assert "Warning: the reconstructions are much better with" in (forced.directory / "README.md").read_text()


@pytest.mark.parametrize(("true", "told"), [("logits", "image"), ("image", "logits")])
def test_logits_are_told_from_images(linear: Linear, sample_file: Path, tmp_path: Path, true: str, told: str) -> None:
    decoder = linear.decoder()
    if true == "logits":  # 6 for white and -6 for black
        for weight in decoder.graph.initializer:
            if weight.name in ("b", "w"):
                values = np.frombuffer(weight.raw_data, np.float32) * 12 - (6 if weight.name == "b" else 0)
                weight.raw_data = values.astype(np.float32).tobytes()
    source = save(tmp_path, linear.encoder(), decoder)
    assert (
        bring(source, tmp_path, sample_file, range=RANGES[0], output=true).round_trip.comparison.better_options is None
    )
    with pytest.raises(ImportRefused, match=f"with --output {true}"):
        bring(source, tmp_path, sample_file, range=RANGES[0], output=told)


def test_the_order_of_channels_is_told_where_only_one_half_has_it(
    colours: Pixels, colour_file: Path, tmp_path: Path
) -> None:
    foreign = Linear.fitted(colours, bgr=True, layout="flat-nhwc")
    source = save(tmp_path, foreign.encoder(), foreign.decoder())
    options = {"range": RANGES[0], "output": "image", "image": (3, 28, 28)}
    with pytest.raises(ImportRefused, match="--layout flat-nhwc"):
        bring(source, tmp_path, colour_file, layout="flat", bgr=True, **options)
    with pytest.raises(ImportRefused, match="--bgr"):
        bring(source, tmp_path, colour_file, layout="flat-nhwc", **options)


@pytest.mark.parametrize("order", ["smooth first", "smooth last", "every fourth"])
@pytest.mark.parametrize("bgr", [False, True])
def test_every_answer_is_tried_on_the_same_images_of_the_whole_set(tmp_path: Path, order: str, bgr: bool) -> None:
    """A model that halves the resolution takes any range and order of channels: no answer is better than another."""
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (160, 32, 32, 3), np.uint8)
    images[:40] = rng.integers(0, 256, (40, 1, 1, 3))
    turned = {"smooth first": images, "smooth last": images[::-1], "every fourth": images.reshape(4, 40, 32, 32, 3)}
    np.savez(
        tmp_path / "images.npz", images=turned[order].swapaxes(0, int(order == "every fourth")).reshape(images.shape)
    )
    source = save(tmp_path, *halving())
    done = bring(source, tmp_path, tmp_path / "images.npz", range=RANGES[0], output="image", bgr=bgr)
    comparison = done.round_trip.comparison
    assert comparison.images == 64
    assert comparison.error == pytest.approx(done.round_trip.error, rel=0.2)
    assert comparison.alternatives["--no-bgr" if bgr else "--bgr"] == pytest.approx(comparison.error)


def test_a_few_images_are_all_tried(linear: Linear, digits: Pixels, tmp_path: Path) -> None:
    np.savez(tmp_path / "few.npz", images=digits[:12])
    source = save(tmp_path, linear.encoder(), linear.decoder())
    trip = bring(source, tmp_path, tmp_path / "few.npz", range=RANGES[0], output="image").round_trip
    assert (trip.comparison.images, trip.comparison.error) == (12, trip.error)
    assert trip.comparison.mean_image_error == trip.mean_image_error


def test_files_are_sampled_from_end_to_end(tmp_path: Path) -> None:
    values = np.repeat(np.arange(250, dtype=np.uint8), 2)[:, None, None]  # 500 images, sorted
    np.savez(tmp_path / "sorted.npz", images=np.tile(values, (1, 4, 4)))
    chosen = read_sample_file(tmp_path / "sorted.npz", (1, 4, 4), 256)[:, 0, 0, 0]
    assert (len(chosen), list(chosen)) == (256, sorted(chosen))
    assert np.histogram(chosen, 5)[0].min() > 40


def test_a_folders_images_are_resized_with_the_filter_of_the_answers(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (64, 64), np.uint8)
    Image.fromarray(noise).save(tmp_path / "noise.png")
    for name, number in ((None, Image.Resampling.LANCZOS), ("nearest", Image.Resampling.NEAREST)):
        named: Any = {} if name is None else {"resampling": name}
        (pixels,) = read_sample_file(tmp_path, (1, 8, 8), 1, **named)
        assert np.array_equal(pixels[0], np.asarray(Image.fromarray(noise).resize((8, 8), number)))


def test_made_pictures_are_warned_of_and_refuse_nothing(linear: Linear, tmp_path: Path) -> None:
    source = save(tmp_path, linear.encoder(), linear.decoder())
    done = bring(source, tmp_path, range=RANGES[1], output="image")
    words = list(warnings(*done[1:]))
    assert words[0].startswith("no images were given")
    manifest = read_manifest(done.directory)
    assert (manifest.metrics, manifest.arrays) == ({}, {})


def test_latents_that_do_not_follow_the_prior_are_warned_of(linear: Linear, sample_file: Path, tmp_path: Path) -> None:
    far = Linear(linear.center, linear.basis * 5)
    source = save(tmp_path, far.encoder(), linear.decoder())
    done = bring(source, tmp_path, sample_file, range=RANGES[0], output="image")
    assert any("--prior none" in words for words in warnings(*done[1:]))
    again = bring(source, tmp_path, sample_file, range=RANGES[0], output="image", prior="none", name="other")
    assert not any("--prior none" in words for words in warnings(*again[1:]))
    assert read_manifest(again.directory).latent.prior is None


def test_a_model_that_knows_nothing_is_warned_of(linear: Linear, sample_file: Path, tmp_path: Path) -> None:
    other = Linear(linear.center, linear.basis[::-1])
    source = save(tmp_path, linear.encoder(), other.decoder())
    done = bring(source, tmp_path, sample_file, range=RANGES[0], output="image", force=True)
    assert any("no better than the mean image" in words for words in warnings(*done[1:]))


def test_the_figures_are_those_of_the_bundle(linear: Linear, planes: Pixels, sample_file: Path, tmp_path: Path) -> None:
    source = save(tmp_path, linear.encoder(), linear.decoder())
    done = bring(source, tmp_path, sample_file, range=RANGES[0], output="image")
    images = planes[:100]
    truth = np.clip(linear.decoded(linear.mean(images)), 0, 1)
    assert done.round_trip.error == pytest.approx(np.square(truth - images / 255).mean(), rel=1e-3)
    assert done.round_trip.mean_image_error == pytest.approx((images / 255).var(axis=0).mean(), rel=1e-3)
    metrics = read_manifest(done.directory).metrics
    assert metrics["mean_squared_error"] == pytest.approx(done.round_trip.error, abs=1e-6)
    assert (metrics["images"], len(metrics["kl_per_dimension"])) == (100, LATENT)
    assert sum(metrics["kl_per_dimension"]) == pytest.approx(metrics["kl"], abs=0.01)


def test_the_card_shows_what_was_answered_and_measured(linear: Linear, sample_file: Path, tmp_path: Path) -> None:
    source = save(tmp_path, linear.encoder(), linear.decoder())
    done = bring(source, tmp_path, sample_file, range=RANGES[0], output="image")
    card = (done.directory / "README.md").read_text()
    assert card.startswith("# mine, version 1\n\nA test.\n\nImported from a pair of ONNX files.")
    for name, value in figures(done.round_trip):
        assert f"| {name} | {value} |" in card
    assert "in batches of 1, 2, 7, 64" in card
    assert "| posterior | log-variance |" in card
    with Image.open(done.directory / "reconstructions.png") as picture:
        assert picture.size == (8 * 30, 8 * 30)  # four rows, and their reconstructions


def test_the_arrays_of_real_images_are_there(linear: Linear, planes: Pixels, sample_file: Path, tmp_path: Path) -> None:
    source = save(tmp_path, linear.encoder(), linear.decoder())
    arrays = read(bring(source, tmp_path, sample_file, range=RANGES[0], output="image")).arrays
    np.testing.assert_allclose(arrays["held_out_means"], linear.mean(planes[:100]), atol=1e-3)
    assert arrays["directions"].shape == (LATENT, LATENT)


def test_images_from_everywhere(linear: Linear, digits: Pixels, sample_file: Path, tmp_path: Path) -> None:
    folder, plain = tmp_path / "digits", tmp_path / "digits-idx3-ubyte"
    folder.mkdir()
    for place, digit in enumerate(digits[:20]):
        Image.fromarray(digit).save(folder / f"{place}.png")
    (folder / "broken.png").write_bytes(b"no picture")
    packed = DATA / "digits-images-idx3-ubyte.gz"
    plain.write_bytes(gzip.decompress(packed.read_bytes()))
    source = save(tmp_path, linear.encoder(), linear.decoder())
    counts = [
        len(bring(source, tmp_path, images, range=RANGES[0], output="image").round_trip.samples.images)
        for images in (folder, plain, packed, sample_file)
    ]
    assert counts == [20, 256, 256, 100]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("absent", "absent is absent"),
        ("empty", "has no images"),
        ("a.npz", "cannot be read as .npz"),
        ("a.idx", "cannot be read as an IDX file"),
        ("small.npz", r"holds \[5, 8, 8, 1\]; the model's images are"),
    ],
)
def test_images_that_cannot_be_read(linear: Linear, tmp_path: Path, name: str, message: str) -> None:
    (tmp_path / "empty").mkdir()
    for broken in ("a.npz", "a.idx"):
        (tmp_path / broken).write_bytes(b"nothing of that kind")
    np.savez(tmp_path / "small.npz", images=np.zeros((5, 8, 8), np.uint8))
    source = save(tmp_path, linear.encoder(), linear.decoder())
    with pytest.raises(ImportRefused, match=message):
        bring(source, tmp_path, tmp_path / name, range=RANGES[0], output="image")


@pytest.mark.parametrize(("seconds", "rows"), [(1e-4, 256), (PATIENCE_SECONDS / 20, 20), (PATIENCE_SECONDS, 8)])
def test_a_net_is_tried_with_as_many_images_as_a_minute_allows(seconds: float, rows: int) -> None:
    assert LatentInfo((4,), None, seconds).affordable_rows(8, 256) == rows
