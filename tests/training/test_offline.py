"""A bundle's graphs, run batch by batch."""

import numpy as np
import pytest

from app.bundle.files import read_bundle
from app.inference.session import Session
from tests.conftest import Pixels
from tests.training.conftest import Workshop
from training.offline import BATCH, OfflineGraphs


@pytest.fixture(scope="module")
def graphs(exported: Workshop) -> OfflineGraphs:
    return OfflineGraphs(read_bundle(exported.bundle("tiny")))


@pytest.mark.parametrize("count", [1, BATCH - 1, BATCH, BATCH + 1, 2 * BATCH])
def test_rows_stay_in_order_whatever_their_number(exported: Workshop, graphs: OfflineGraphs, count: int) -> None:
    bundle = read_bundle(exported.bundle("tiny"))
    encoder, decoder = Session(bundle.encoder, name="encoder"), Session(bundle.decoder, name="decoder")
    images = np.random.default_rng(0).integers(0, 256, (count, 1, 28, 28)).astype(np.uint8)
    posterior = graphs.encode(images)
    heads = encoder.run({"image": images})
    assert np.array_equal(posterior.mean, heads["mean"])
    assert np.array_equal(posterior.log_std, heads["log_std"])
    outputs = decoder.run({"latent": posterior.mean})
    assert np.array_equal(graphs.decode(posterior.mean), outputs["image"])
    assert np.array_equal(graphs.parameters(posterior.mean)["logits"], outputs["logits"])


def test_an_autoencoder_has_no_log_std(exported: Workshop, digits: Pixels) -> None:
    posterior = OfflineGraphs(read_bundle(exported.bundle("tiny-ae"))).encode(digits[:3, None])
    assert posterior.mean.shape == (3, 2)
    assert posterior.log_std is None


def test_the_image_is_the_likelihoods_mean(graphs: OfflineGraphs) -> None:
    latents = np.random.default_rng(0).normal(size=(20, 4)).astype(np.float32)
    probabilities = 1 / (1 + np.exp(-graphs.parameters(latents)["logits"].astype(np.float64)))
    assert np.abs(graphs.decode(latents) - 255 * probabilities).max() < 0.51
