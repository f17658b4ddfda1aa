"""Batches go through every image, in an order that seed and epoch decide, in equal shares."""

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from training.fit.batches import ImageBatch, ImageBatches


def tensor(count: int) -> torch.Tensor:
    """`count` images of one pixel, numbered (so at most 256)."""
    return torch.arange(count, dtype=torch.uint8).reshape(-1, 1, 1, 1)


def numbers(batches: ImageBatches) -> list[int]:
    return [int(number) for batch in batches for number in batch.images.flatten()]


def of_all(count: int, size: int, world: int, *, seed: int | None, epoch: int = 0) -> list[tuple[ImageBatch, ...]]:
    """The shares of each batch, one of every process."""
    ranks = [ImageBatches(tensor(count), size, seed=seed, rank=rank, world_size=world) for rank in range(world)]
    for batches in ranks:
        batches.set_epoch(epoch)
    return list(zip(*ranks, strict=True))


counts, sizes, worlds = st.integers(1, 200), st.integers(1, 50), st.integers(1, 4)
seeds, epochs = st.integers(0, 2**31 - 1), st.integers(0, 1000)


@given(counts, sizes, seeds, epochs)
@settings(deadline=None)
def test_an_epoch_has_every_image_exactly_once(count: int, size: int, seed: int, epoch: int) -> None:
    batches = ImageBatches(tensor(count), size, seed=seed)
    batches.set_epoch(epoch)
    assert sorted(numbers(batches)) == list(range(count))


@given(counts, sizes)
@settings(deadline=None)
def test_one_process_has_whole_batches(count: int, size: int) -> None:
    batches = ImageBatches(tensor(count), size, seed=0)
    lengths = [len(batch.images) for batch in batches]
    assert len(batches) == len(lengths)
    assert all(length == size for length in lengths[:-1])
    assert 1 <= lengths[-1] <= size
    assert all((batch.start, batch.total) == (0, len(batch.images)) for batch in batches)


@given(seeds, epochs)
@settings(deadline=None)
def test_the_order_depends_on_seed_and_epoch_alone(seed: int, epoch: int) -> None:
    first, second = ImageBatches(tensor(100), 10, seed=seed), ImageBatches(tensor(100), 7, seed=seed)
    numbers(second)  # having been iterated before makes no difference
    torch.rand(3)
    for batches in (first, second):
        batches.set_epoch(epoch)
    order = numbers(first)
    assert numbers(second) == order
    assert numbers(first) == order
    first.set_epoch(epoch + 1)
    assert numbers(first) != order
    other = ImageBatches(tensor(100), 10, seed=seed + 1)
    other.set_epoch(epoch)
    assert numbers(other) != order


def test_without_a_seed_the_order_is_the_tensors() -> None:
    batches = ImageBatches(tensor(11), 4)
    for epoch in range(2):
        batches.set_epoch(epoch)
        assert numbers(batches) == list(range(11))


@given(counts, sizes, worlds, seeds, epochs)
@settings(deadline=None)
def test_processes_share_the_batches_that_one_would_have(
    count: int, size: int, world: int, seed: int, epoch: int
) -> None:
    """Side by side the shares are the batch of one process, but for what does not go into equal shares at the end."""
    alone = ImageBatches(tensor(count), size * world, seed=seed)
    alone.set_epoch(epoch)
    shared = of_all(count, size * world, world, seed=seed, epoch=epoch)
    seen = [int(number) for shares in shared for share in shares for number in share.images.flatten()]
    assert seen == numbers(alone)[: count // world * world]
    for shares in shared:
        assert len({len(share.images) for share in shares}) == 1, "or a mean over processes is not that over images"
        assert {share.total for share in shares} == {sum(len(share.images) for share in shares)}
        assert [share.start for share in shares] == [rank * len(shares[0].images) for rank in range(world)]


@given(counts, sizes, worlds)
@settings(deadline=None)
def test_without_a_seed_shares_may_differ_but_nothing_is_left_out(count: int, size: int, world: int) -> None:
    shared = of_all(count, size, world, seed=None)
    seen: list[int] = []
    for shares in shared:
        begin = len(seen)
        for share in shares:
            assert share.start == len(seen) - begin
            assert share.total == sum(len(other.images) for other in shares)
            seen += share.images.flatten().tolist()
    assert seen == list(range(count))


@given(counts, sizes, worlds, st.booleans())
@settings(deadline=None)
def test_every_process_takes_as_many_steps_as_it_says(count: int, size: int, world: int, shuffled: bool) -> None:
    seed = 0 if shuffled else None
    ranks = [ImageBatches(tensor(count), size, seed=seed, rank=rank, world_size=world) for rank in range(world)]
    assert len({len(batches) for batches in ranks}) == 1
    assert all(len(list(batches)) == len(batches) for batches in ranks)


def test_batches_lie_where_their_images_do() -> None:
    images = tensor(4).to("meta")
    assert {batch.images.device.type for batch in ImageBatches(images, 2, seed=0)} == {"meta"}
