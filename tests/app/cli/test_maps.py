"""Commands on models whose latents are maps, of images of any size."""

import json
from pathlib import Path

import numpy as np
import pytest

from tests.app.cli.conftest import Call, shell
from tests.conftest import Start, load_npz, png
from tests.maps import CELLS, Pixels, are_near, images_of, maps, means, write_maps

BUNDLE = ("--bundle", "free/maps/1")


@pytest.fixture
def images(folder: Path) -> Pixels:
    """Ten pictures of one size in `pictures/`, and a bundle for any size."""
    write_maps(folder / "free")
    (folder / "pictures").mkdir()
    images = np.random.default_rng(0).integers(0, 256, (10, 16, 24, 3), np.uint8)
    for index, image in enumerate(images):
        (folder / "pictures" / f"{index}.png").write_bytes(png(image))
    return images


def test_encode_and_decode(call: Call, folder: Path, images: Pixels) -> None:
    assert call("encode", "pictures", "--batch-size", 4, "-o", "latents.npz", *BUNDLE)[0] == 0
    arrays = load_npz((folder / "latents.npz").read_bytes())
    np.testing.assert_allclose(arrays["mean"], means(images), atol=1e-6)
    assert call("decode", "latents.npz", "--batch-size", 4, "-o", "decoded.npz", *BUNDLE)[0] == 0
    assert are_near(load_npz((folder / "decoded.npz").read_bytes())["images"], images_of(means(images)))


def test_grey_images_have_a_channel(call: Call, folder: Path, images: Pixels) -> None:
    write_maps(folder / "free", "grey", channels=1)
    latents = np.random.default_rng(0).random((2, CELLS, 2, 3), np.float32)
    np.save(folder / "latents.npy", latents)
    assert call("decode", "latents.npy", "-o", "decoded.npz", "--bundle", "free/grey/1")[0] == 0
    decoded = load_npz((folder / "decoded.npz").read_bytes())["images"]
    assert are_near(decoded[..., None], images_of(latents, channels=1))


def test_a_picture_is_rounded_to_the_stride(call: Call, folder: Path, images: Pixels) -> None:
    (folder / "odd.png").write_bytes(png(np.zeros((23, 41, 3), np.uint8)))
    status, out, _ = call("encode", "odd.png", *BUNDLE)
    assert status == 0
    assert maps(json.loads(out), "mean").shape == (1, CELLS, 2, 5)
    status, _, error = call("encode", "odd.png", "--strict", *BUNDLE)
    assert status == 1
    assert "multiples of 8" in error


@pytest.mark.parametrize("batch", [1, 3, 64])
def test_those_of_another_size_are_skipped(call: Call, folder: Path, images: Pixels, batch: int) -> None:
    (folder / "pictures" / "4.png").write_bytes(png(images[4].swapaxes(0, 1).copy()))
    (folder / "pictures" / "0.png").write_bytes(b"no picture")
    status, _, error = call("encode", "pictures", "--batch-size", batch, "-o", "latents.npz", *BUNDLE)
    assert status == 1
    assert "2 of 10 images were skipped" in error
    assert "4.png: of another size than the first" in error
    kept = [1, 2, 3, 5, 6, 7, 8, 9]
    np.testing.assert_allclose(load_npz((folder / "latents.npz").read_bytes())["mean"], means(images[kept]), atol=1e-6)


def test_reconstruct_and_interpolate(call: Call, folder: Path, images: Pixels) -> None:
    assert call("reconstruct", "pictures", "-o", "again.npz", *BUNDLE)[0] == 0
    assert are_near(load_npz((folder / "again.npz").read_bytes())["images"], images_of(means(images)))
    ends = ("pictures/0.png", "pictures/1.png")
    assert call("interpolate", *ends, "--steps", 3, "-o", "path.npz", *BUNDLE)[0] == 0
    path = load_npz((folder / "path.npz").read_bytes())
    np.testing.assert_allclose(path["latents"][::2], means(images[:2]), atol=1e-6)
    status, _, error = call("interpolate", "pictures/0.png", "latent:0.5,1", "-o", "path.npz", *BUNDLE)
    assert status == 2
    assert "maps of any size, and latent: gives no size: give images" in error


def test_a_typed_latent_has_the_models_shape(call: Call, folder: Path, images: Pixels) -> None:
    write_maps(folder / "fixed", size=(16, 24))
    latents = np.random.default_rng(0).random((3, CELLS, 2, 3), np.float32)
    np.save(folder / "latents.npy", latents[:2])
    typed, bundle = "latent:" + ",".join(map(str, latents[2].ravel())), ("--bundle", "fixed/maps/1")
    assert call("decode", "latents.npy", typed, "-o", "decoded.npz", *bundle)[0] == 0
    decoded = load_npz((folder / "decoded.npz").read_bytes())
    np.testing.assert_array_equal(decoded["latents"], latents)
    assert are_near(decoded["images"], images_of(latents))
    assert call("interpolate", typed, typed, "--steps", 2, "-o", "path.npz", *bundle)[0] == 0
    path = load_npz((folder / "path.npz").read_bytes())["latents"]
    np.testing.assert_allclose(path, latents[[2, 2]], rtol=1e-6)
    for given, words in (([typed + ",1"], "[N, 4, 2, 3]"), (["latents.npy", typed + ",1"], "not all of one shape")):
        status, _, error = call("decode", *given, "-o", "wrong.npz", *bundle)
        assert status in (1, 2)
        assert words in error
    status, _, error = call("decode", typed, "-o", "wrong.npz", *BUNDLE)
    assert status == 2
    assert "maps of any size, and latent: gives no size: give an npy or npz file" in error


def test_sample(call: Call, folder: Path, images: Pixels) -> None:
    status, _, error = call("sample", "-o", "drawn.npz", *BUNDLE)
    assert status == 1
    assert "give its height" in error
    assert call("sample", "--height", 16, "--width", 24, "--seed", 1, "-o", "drawn.npz", *BUNDLE)[0] == 0
    assert load_npz((folder / "drawn.npz").read_bytes())["images"].shape == (1, 16, 24, 3)


def test_a_picture_from_stdin(folder: Path, images: Pixels) -> None:
    done = shell("cat pictures/3.png | vaeserve encode - " + " ".join(BUNDLE), folder)
    assert done.returncode == 0, done.stderr
    np.testing.assert_allclose(maps(json.loads(done.stdout), "mean"), means(images[3:4]), atol=1e-6)


def test_load_is_of_some_size(start: Start, folder: Path, images: Pixels) -> None:
    _, client = start(models_dir=folder / "free", log_level="warning")
    for operation in ("encode", "decode", "reconstruct", "sample"):
        line = f"vaeserve bench {operation} --duration 0.2 --connections 1 --json --url {client.base_url}"
        done = shell(line, folder)
        assert done.returncode == 0, done.stderr
        assert list(json.loads(done.stdout)["statuses"]) == ["200"]
