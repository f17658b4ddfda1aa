"""Tiles: what is computed of them is what is computed at once, and no seam shows."""

import asyncio
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from app.inference.tiling import Arrays, Axis, Plan, tiled

STRIDE = 8


@pytest.mark.parametrize("margin", [0, 1, 3, 1000])
@pytest.mark.parametrize("longest", [4, 5, 6, 7, 8, 13, 64])
def test_tiles_cover_a_side_evenly(longest: int, margin: int) -> None:
    for length in [*range(1, 5 * longest), 10 * longest + 1]:
        axis = Axis(length, longest, margin)
        starts, ends = axis.starts, [start + axis.tile for start in axis.starts]
        assert (starts[0], ends[-1]) == (0, length)
        assert len(starts) == 1 or longest == axis.tile
        overlaps = [end - start for end, start in zip(ends, starts[1:], strict=False)]
        assert all(overlap >= longest // 4 for overlap in overlaps)
        assert all(overlap >= min(2 * margin + axis.fade, longest // 2) for overlap in overlaps)
        assert all(start < after for start, after in pairwise(starts))


@pytest.mark.parametrize("margin", [0, 1, 3, 1000])
@pytest.mark.parametrize("longest", [4, 5, 6, 7, 8, 13, 64])
def test_shares_add_up_to_one(longest: int, margin: int) -> None:
    for length in [*range(1, 5 * longest), 10 * longest + 1]:
        axis, sums = Axis(length, longest, margin), np.zeros(3 * length)
        for index, start in enumerate(axis.starts):
            first, last = axis.part(index)
            assert start <= first < last <= start + axis.tile
            weights = axis.weights(index, 3)
            assert weights.min() > 0
            sums[3 * first : 3 * last] += weights
        np.testing.assert_allclose(sums, 1, atol=1e-6)


class Net:
    """Averages blocks of an image, or repeats cells; keeps what it was given."""

    def __init__(self) -> None:
        self.given: list[tuple[int, ...]] = []

    async def encode(self, images: NDArray[Any]) -> Arrays:
        self.given.append(images.shape)
        count, channels, height, width = images.shape
        blocks = images.reshape(count, channels, height // STRIDE, STRIDE, width // STRIDE, STRIDE)
        return {"mean": blocks.mean(axis=(3, 5)).astype(np.float32), "log_std": blocks.std(axis=(3, 5))}

    async def decode(self, latents: NDArray[Any]) -> Arrays:
        self.given.append(latents.shape)
        repeated = latents.repeat(STRIDE, axis=2).repeat(STRIDE, axis=3)
        return {"image": np.round(repeated).astype(np.uint8), "logits": repeated}


@pytest.mark.parametrize(("height", "width"), [(64, 200), (136, 64), (136, 208), (72, 72), (8, 400)])
def test_a_net_that_looks_at_single_cells_gives_the_same(height: int, width: int) -> None:
    images = np.random.default_rng(0).integers(0, 256, (2, 3, height, width), np.uint8)
    whole = asyncio.run(Net().encode(images))
    net = Net()
    outputs = asyncio.run(tiled(images, Plan.of(height, width, STRIDE, 64), 3, net.encode))
    assert set(net.given) <= {(n, 3, min(height, 64), min(width, 64)) for n in (1, 2, 3)}
    for name, output in outputs.items():
        assert output.dtype == whole[name].dtype
        np.testing.assert_allclose(output, whole[name], rtol=1e-5, atol=1e-4)
    whole = asyncio.run(Net().decode(whole["mean"]))
    outputs = asyncio.run(tiled(outputs["mean"], Plan.of(height // STRIDE, width // STRIDE, 1, 8), 3, Net().decode))
    assert outputs["image"].dtype == np.uint8
    assert np.abs(outputs["image"].astype(int) - whole["image"]).max() <= 1
    np.testing.assert_allclose(outputs["logits"], whole["logits"], rtol=1e-5, atol=1e-3)


@pytest.mark.parametrize(("margin", "is_exact"), [(0, False), (5, False), (6, True)])
def test_a_net_that_looks_further_needs_its_margin(margin: int, is_exact: bool) -> None:
    """Of a mean of 13 columns around each, in tiles of 32: without a margin the overlap is 8, of which 4 fade."""

    async def blurred(tiles: NDArray[Any]) -> Arrays:
        padded = np.pad(tiles, ((0, 0), (0, 0), (0, 0), (6, 6)))
        return {"mean": np.lib.stride_tricks.sliding_window_view(padded, 13, axis=3).mean(axis=4)}

    rows = np.random.default_rng(0).random((1, 1, 8, 150), np.float32)
    whole = asyncio.run(blurred(rows))["mean"]
    output = asyncio.run(tiled(rows, Plan.of(8, 150, 1, 32, margin), 3, blurred))["mean"]
    assert (np.abs(output - whole).max() < 1e-5) == is_exact


def test_a_tile_fades_into_the_next() -> None:
    """Of a net that gives each tile a level of its own, a ramp lies between the levels."""
    levels = iter((0.0, 100.0))

    async def level(tiles: NDArray[Any]) -> Arrays:
        return {"level": np.stack([np.full_like(tile, next(levels)) for tile in tiles])}

    outputs = asyncio.run(tiled(np.zeros((1, 1, 4, 28), np.float32), Plan.of(4, 28, 1, 16), 8, level))
    row = outputs["level"][0, 0, 0]
    assert row[:12].tolist() == [0] * 12
    np.testing.assert_allclose(row[12:16], [0, 25, 75, 100])
    assert row[16:].tolist() == [100] * 12


def test_the_edges_of_tiles_are_not_seen() -> None:
    """Of a net that darkens what is near an edge of its input, only the edges of the whole are dark."""

    async def darkened(tiles: NDArray[Any]) -> Arrays:
        light = np.full_like(tiles, 200)
        light[:, :, [0, -1]] = light[:, :, :, [0, -1]] = 0
        return {"image": light}

    outputs = asyncio.run(tiled(np.zeros((1, 1, 70, 90), np.uint8), Plan.of(70, 90, 1, 32), 100, darkened))
    assert (outputs["image"][0, 0, 1:-1, 1:-1] == 200).all()
    assert not outputs["image"][0, 0, [0, -1]].any()
    assert not outputs["image"][0, 0, :, [0, -1]].any()


def test_what_fails_in_a_tile_is_raised() -> None:
    async def failing(tiles: NDArray[Any]) -> Arrays:
        raise RuntimeError("model raised")

    with pytest.raises(RuntimeError, match="model raised"):
        asyncio.run(tiled(np.zeros((1, 1, 70, 90), np.uint8), Plan.of(70, 90, 1, 32), 100, failing))
