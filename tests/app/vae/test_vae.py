"""One served model, where its bundle has less than the shipped ones."""

import asyncio

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray

from app.bundle.files import Bundle, read_bundle
from app.errors import DeadlineExceeded, InvalidInput
from app.inference.batcher import Batcher
from app.maths.gaussian import Posterior
from app.vae.vae import Vae
from tests.conftest import MODELS


def vae(name: str = "mnist-2d", batcher: Batcher | None = None, **changes: object) -> Vae:
    bundle = read_bundle(MODELS / name / "1")
    return Vae(Bundle(**(bundle.__dict__ | changes)), batcher or Batcher())


def test_without_arrays_there_is_no_aggregate_and_no_label() -> None:
    bare = vae(arrays={})
    assert asyncio.run(bare.sample_prior(0, 3)).shape == (3, 2)
    with pytest.raises(InvalidInput, match="no aggregated posterior"):
        bare.sample_aggregate(0, 3)
    with pytest.raises(InvalidInput, match="no labels"):
        bare.tables.label_mean(0)


def test_without_metrics_the_plane_is_that_of_the_first_two_dimensions() -> None:
    manifest = read_bundle(MODELS / "mnist" / "1").manifest
    assert vae("mnist", manifest=manifest.model_copy(update={"metrics": {}})).main_dims() == (0, 1)


def test_the_plane_is_that_of_the_highest_kl() -> None:
    manifest = read_bundle(MODELS / "mnist" / "1").manifest
    kl = [0.0] * 32
    kl[20], kl[7] = 3.0, 2.0
    assert vae("mnist", manifest=manifest.model_copy(update={"metrics": {"kl_per_dimension": kl}})).main_dims() == (
        7,
        20,
    )


def test_the_rest_of_a_plane_is_the_origin() -> None:
    latents = vae("mnist").plane(np.array([[1.0, 2.0]], np.float32), (5, 3))
    assert latents.shape == (1, 32)
    assert (latents[0, 5], latents[0, 3], np.count_nonzero(latents)) == (1.0, 2.0, 2)


def test_a_deterministic_encoder_draws_nothing() -> None:
    posterior = Posterior(np.zeros((1, 2), np.float32), None)
    with pytest.raises(InvalidInput, match="deterministic"):
        asyncio.run(vae("digits-ae").draw(posterior, 0))


def digit() -> NDArray[np.uint8]:
    return np.zeros((1, 28, 28, 1), np.uint8)


def test_without_calibration_a_score_has_no_percentile() -> None:
    async def main() -> None:
        batcher = Batcher()
        for arrays, known in (({}, False), (read_bundle(MODELS / "mnist-2d" / "1").arrays, True)):
            scores, how = await vae(batcher=batcher, arrays=arrays).score(digit(), k=16, seed=0, how=None)
            assert how == "draw"
            assert (scores.score_percentile is not None) == known

    asyncio.run(main())


def without(graph: bytes, output: str) -> bytes:
    """An ONNX graph that lacks one of its outputs."""
    model = onnx.load_model_from_string(graph)
    kept = [value for value in model.graph.output if value.name != output]
    del model.graph.output[:]
    model.graph.output.extend(kept)
    return bytes(model.SerializeToString())


def test_a_decoder_without_its_likelihoods_parameters_serves_but_scores_nothing() -> None:
    async def main() -> None:
        batcher, bundle = Batcher(), read_bundle(MODELS / "mnist-2d" / "1")
        poor = vae(batcher=batcher, decoder=without(bundle.decoder, "logits"))
        assert (await poor.reconstruct(digit(), "draw", 0)).shape == (1, 28, 28, 1)
        with pytest.raises(InvalidInput, match="no likelihood"):
            await poor.score(digit(), k=1, seed=0, how=None)

    asyncio.run(main())


def test_a_graph_is_run_with_all_its_outputs_or_the_usual_ones() -> None:
    async def main() -> None:
        loaded = vae()
        latents = np.linspace(-1, 1, 10, dtype=np.float32).reshape(5, 2)
        usual, whole = (
            await loaded.run_graph("decoder", latents),
            await loaded.run_graph("parameters", latents),
        )
        assert (set(usual), set(whole)) == ({"image"}, {"image", "logits"})
        assert np.array_equal(usual["image"], whole["image"])
        assert np.array_equal(usual["image"][:, 0, :, :, None], await loaded.decode(latents))
        encoded = await loaded.run_graph("encoder", usual["image"])
        assert np.array_equal(encoded["mean"], (await loaded.encode(await loaded.decode(latents))).mean)
        assert [it.rows for it in loaded.graphs.statistics.values()] == [10, 20]
        with pytest.raises(DeadlineExceeded):
            await loaded.run_graph("encoder", usual["image"], seconds=0)

    asyncio.run(main())


def test_outputs_are_those_that_the_manifest_tells_of_and_the_graph_has() -> None:
    loaded = vae()
    inputs, outputs = loaded.graphs.tensors("decoder")
    assert (list(inputs), list(outputs)) == (["latent"], ["image", "logits"])
    graphs = loaded.manifest.graphs
    told = {**graphs.decoder.outputs, "log_scale": graphs.decoder.outputs["logits"]}
    decoder = graphs.decoder.model_copy(update={"outputs": told})
    manifest = loaded.manifest.model_copy(update={"graphs": graphs.model_copy(update={"decoder": decoder})})
    assert list(vae(manifest=manifest).graphs.tensors("decoder")[1]) == ["image", "logits"]
