"""Batches go through every image, in an order that seed and epoch decide."""

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from training.batches import Batches


def tensor(count: int) -> torch.Tensor:
    """`count` images of one pixel, numbered (so at most 256)."""
    return torch.arange(count, dtype=torch.uint8).reshape(-1, 1, 1, 1)


def numbers(batches: Batches) -> list[int]:
    return [int(number) for batch in batches for number in batch.flatten()]


counts, sizes = st.integers(1, 200), st.integers(1, 50)
seeds, epochs = st.integers(0, 2**31 - 1), st.integers(0, 1000)


@given(counts, sizes, seeds, epochs)
@settings(deadline=None)
def test_an_epoch_has_every_image_exactly_once(count: int, size: int, seed: int, epoch: int) -> None:
    batches = Batches(tensor(count), size, seed=seed)
    batches.set_epoch(epoch)
    assert sorted(numbers(batches)) == list(range(count))


@given(counts, sizes, st.integers(1, 4))
@settings(deadline=None)
def test_the_length_is_the_number_of_batches(count: int, size: int, world: int) -> None:
    for rank in range(world):
        batches = Batches(tensor(count), size, seed=0, rank=rank, world_size=world)
        lengths = [len(batch) for batch in batches]
        assert len(batches) == len(lengths)
        assert all(length == size for length in lengths[:-1])
        assert 1 <= lengths[-1] <= size


@given(seeds, epochs)
@settings(deadline=None)
def test_the_order_depends_on_seed_and_epoch_alone(seed: int, epoch: int) -> None:
    first, second = Batches(tensor(100), 10, seed=seed), Batches(tensor(100), 7, seed=seed)
    numbers(second)  # having been iterated before makes no difference
    torch.rand(3)
    for batches in (first, second):
        batches.set_epoch(epoch)
    order = numbers(first)
    assert numbers(second) == order
    assert numbers(first) == order
    first.set_epoch(epoch + 1)
    assert numbers(first) != order
    other = Batches(tensor(100), 10, seed=seed + 1)
    other.set_epoch(epoch)
    assert numbers(other) != order


def test_without_a_seed_the_order_is_the_tensors() -> None:
    batches = Batches(tensor(11), 4)
    for epoch in range(2):
        batches.set_epoch(epoch)
        assert numbers(batches) == list(range(11))


@given(st.integers(1, 100), st.integers(2, 4), seeds, epochs)
@settings(deadline=None)
def test_ranks_partition_an_epoch(share: int, world: int, seed: int, epoch: int) -> None:
    count = share * world if share * world <= 256 else share
    parts = []
    for rank in range(world):
        batches = Batches(tensor(count), 8, seed=seed, rank=rank, world_size=world)
        batches.set_epoch(epoch)
        parts.append(numbers(batches))
    seen = [number for part in parts for number in part]
    assert set(seen) == set(range(count))
    # Every rank takes as many steps; where the images don't go evenly into the ranks, a few are seen twice.
    assert len({len(part) for part in parts}) == 1
    assert len(seen) - count < world


def test_batches_lie_where_their_images_do() -> None:
    images = tensor(4).to("meta")
    assert {batch.device.type for batch in Batches(images, 2, seed=0)} == {"meta"}
