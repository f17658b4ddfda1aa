"""Models of other code bases, as their users save them."""

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from lightning.pytorch import Trainer
from onnx import helper, numpy_helper
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, quantize_static
from pythae.models import VAE, VAE_IAF, VAMP, VQVAE, VAE_IAF_Config, VAEConfig, VAMPConfig, VQVAEConfig

from app.bundle.files import read_bundle
from app.inference.session import Session
from tests.conftest import Pixels
from tests.training.importing import nets
from tests.training.importing.foreign import Imported, Linear, bring, save
from training.errors import ImportRefused
from training.importing.options import RANGES, TorchClass
from training.importing.report import figures, warnings

PATH = "tests.training.importing.nets"
SIZE = {"input_dim": (1, 8, 8), "latent_dim": 2}


@pytest.fixture(scope="module")
def small(digits: Pixels) -> Pixels:
    """Digits of 8 x 8 pixels, uint8 `[64, 1, 8, 8]`."""
    return np.ascontiguousarray(digits[:64, None, 2:26:3, 2:26:3])


def bring_pythae(model: Any, folder: Path, **options: Any) -> Imported:
    model.save(str(folder / "saved"))
    loader = TorchClass("pythae.models:AutoModel.load_from_folder", [f"dir_path={folder / 'saved'}"])
    return bring(loader, folder, **({"image": (1, 8, 8)} | options))


@pytest.mark.parametrize(("kind", "config"), [(VAE, VAEConfig), (VAMP, VAMPConfig)])
def test_pythaes_gaussian_models(small: Pixels, tmp_path: Path, kind: Any, config: Any) -> None:
    torch.manual_seed(7)
    model = kind(config(**SIZE)).eval()
    done = bring_pythae(model, tmp_path)
    assert dict(figures(done.round_trip))["the model's own forward pass"] == "the same images"
    bundle = read_bundle(done.directory)
    heads = Session(bundle.encoder, name="encoder").run({"image": small})
    with torch.no_grad():
        wanted = model.encoder(torch.from_numpy(small / np.float32(255)))
        decoded = model.decoder(wanted.embedding).reconstruction.numpy()
    np.testing.assert_allclose(heads["mean"], wanted.embedding, atol=1e-4)
    np.testing.assert_allclose(heads["log_std"], 0.5 * wanted.log_covariance, atol=1e-4)
    image = Session(bundle.decoder, name="decoder").run({"latent": heads["mean"]})["image"]
    assert np.abs(image.astype(int) - np.rint(255 * decoded)).max() <= 1
    has_prior = kind is VAE
    assert bundle.manifest.latent.prior == ("standard_normal" if has_prior else None)
    assert any("learned prior" in words for words in warnings(*done[1:])) != has_prior


@pytest.mark.parametrize(
    ("kind", "config", "family"),
    [
        (VQVAE, VQVAEConfig, "a vector-quantized model"),
        (VAE_IAF, VAE_IAF_Config, "a model with a flow posterior"),
    ],
)
def test_pythaes_models_that_a_bundle_cannot_represent(tmp_path: Path, kind: Any, config: Any, family: str) -> None:
    torch.manual_seed(7)
    with pytest.raises(ImportRefused, match=f"own forward pass differs .*, as in {family}"):
        bring_pythae(kind(config(**SIZE)).eval(), tmp_path)


def test_pytorchs_example(digits: Pixels, tmp_path: Path) -> None:
    """Flat images, a forward pass that flattens them, a sigmoid that is a probability."""
    torch.manual_seed(9)
    model = nets.Example().eval()
    torch.save(model.state_dict(), tmp_path / "vae.pth")
    source = TorchClass(f"{PATH}:Example", weights=[tmp_path / "vae.pth"])
    done = bring(source, tmp_path, image=(1, 28, 28), posterior="log-variance", output="probabilities")
    assert (done.answers.layout, dict(figures(done.round_trip))["the model's own forward pass"]) == (
        "flat",
        "the same images",
    )
    bundle = read_bundle(done.directory)
    mean = Session(bundle.encoder, name="encoder").run({"image": digits[:7, None]})["mean"]
    with torch.no_grad():
        wanted = model.encode(torch.from_numpy(digits[:7].reshape(-1, 784) / np.float32(255)))[0]
        logits = torch.logit(model.decode(wanted).double()).reshape(-1, 1, 28, 28)
    np.testing.assert_allclose(mean, wanted, atol=1e-4)
    given = Session(bundle.decoder, name="decoder").run({"latent": mean})["logits"]
    np.testing.assert_allclose(given, logits, atol=1e-3)


def test_a_checkpoint_of_lightning(small: Pixels, tmp_path: Path) -> None:
    torch.manual_seed(10)
    module = nets.Trained(latent=4)
    trainer = Trainer(logger=False, enable_checkpointing=False, accelerator="cpu")
    trainer.strategy.connect(module)
    trainer.save_checkpoint(tmp_path / "last.ckpt")
    source = TorchClass(f"{PATH}:Vae", ["latent=4"], [tmp_path / "last.ckpt"])
    bundle = read_bundle(bring(source, tmp_path, image=(1, 8, 8), posterior="log-variance").directory)
    mean = Session(bundle.encoder, name="encoder").run({"image": small})["mean"]
    with torch.no_grad():
        wanted = module.model.encode(torch.from_numpy(small / np.float32(255)))[0]
    np.testing.assert_allclose(mean, wanted, atol=1e-4)


def keras() -> tuple[onnx.ModelProto, onnx.ModelProto]:
    """Keras' example of a VAE as tf2onnx converts it: pixels last, transposes inside, three outputs, one drawn."""
    rng = np.random.default_rng(0)

    def weight(name: str, *shape: int) -> onnx.TensorProto:
        return numpy_helper.from_array(rng.normal(0, 0.3, shape).astype(np.float32), name)

    def model(name: str, nodes: list[Any], weights: list[Any], inputs: Any, outputs: Any) -> onnx.ModelProto:
        infos = [
            [helper.make_tensor_value_info(key, 1, ["unk__1", *shape]) for key, shape in part.items()]
            for part in (inputs, outputs)
        ]
        graph = helper.make_graph(nodes, name, *infos, weights)
        return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 15)], ir_version=8)

    node = helper.make_node
    half = numpy_helper.from_array(np.float32(0.5), "half")
    encoder = model(
        "encoder",
        [
            node("Transpose", ["encoder_input"], ["planes"], perm=[0, 3, 1, 2]),
            node("Conv", ["planes", "kernel"], ["convolved"], strides=[2, 2], kernel_shape=[2, 2]),
            node("Relu", ["convolved"], ["active"]),
            node("Transpose", ["active"], ["last"], perm=[0, 2, 3, 1]),
            node("Reshape", ["last", "rows"], ["flat"]),
            node("MatMul", ["flat", "mean_w"], ["z_mean"]),
            node("MatMul", ["flat", "log_var_w"], ["z_log_var"]),
            node("Mul", ["z_log_var", "half"], ["log_std"]),
            node("Exp", ["log_std"], ["std"]),
            node("RandomNormalLike", ["z_mean"], ["epsilon"], dtype=1),
            node("Mul", ["std", "epsilon"], ["noise"]),
            node("Add", ["z_mean", "noise"], ["sampling"]),
        ],
        [
            weight("kernel", 3, 1, 2, 2),
            weight("mean_w", 48, 2),
            weight("log_var_w", 48, 2),
            half,
            numpy_helper.from_array(np.array([-1, 48]), "rows"),
        ],
        {"encoder_input": (8, 8, 1)},
        {"z_mean": (2,), "z_log_var": (2,), "sampling": (2,)},
    )
    decoder = model(
        "decoder",
        [
            node("MatMul", ["z_sampling", "w"], ["flat"]),
            node("Reshape", ["flat", "shape"], ["last"]),
            node("Transpose", ["last"], ["planes"], perm=[0, 3, 1, 2]),
            node("ConvTranspose", ["planes", "kernel"], ["convolved"], strides=[2, 2], kernel_shape=[2, 2]),
            node("Transpose", ["convolved"], ["pixels"], perm=[0, 2, 3, 1]),
            node("Sigmoid", ["pixels"], ["decoder_output"]),
        ],
        [weight("w", 2, 48), weight("kernel", 3, 1, 2, 2), numpy_helper.from_array(np.array([-1, 4, 4, 3]), "shape")],
        {"z_sampling": (2,)},
        {"decoder_output": (8, 8, 1)},
    )
    return encoder, decoder


def test_keras_example(small: Pixels, tmp_path: Path) -> None:
    source = save(tmp_path, *keras())
    done = bring(source, tmp_path, output="probabilities")
    assert (done.answers.layout, done.answers.posterior, done.answers.range) == ("nhwc", "log-variance", RANGES[0])
    bundle = read_bundle(done.directory)
    foreign = [Session(path.read_bytes(), name=path.name) for path in source]
    wanted = foreign[0].run({"encoder_input": small.transpose(0, 2, 3, 1) / np.float32(255)})
    heads = Session(bundle.encoder, name="encoder").run({"image": small})
    np.testing.assert_allclose(heads["mean"], wanted["z_mean"], atol=1e-5)
    np.testing.assert_allclose(heads["log_std"], wanted["z_log_var"] / 2, atol=1e-5)
    decoded = foreign[1].run({"z_sampling": heads["mean"]})["decoder_output"].transpose(0, 3, 1, 2)
    outputs = Session(bundle.decoder, name="decoder").run({"latent": heads["mean"]})
    np.testing.assert_allclose(1 / (1 + np.exp(-outputs["logits"])), decoded, atol=1e-5)


class Rows(CalibrationDataReader):
    """Rows that a quantization is calibrated with."""

    def __init__(self, name: str, rows: Any) -> None:
        self._batches = iter([{name: rows}])

    def get_next(self) -> Any:
        return next(self._batches, None)


@pytest.mark.parametrize("form", list(QuantFormat))
def test_graphs_of_8_bit_integers(
    linear: Linear, planes: Pixels, sample_file: Path, tmp_path: Path, form: QuantFormat
) -> None:
    plain = save(tmp_path, linear.encoder(), linear.decoder())
    rows = {"encoder": planes[:64] / np.float32(255), "decoder": linear.mean(planes[:64])}
    source = [path.with_name(f"int8-{path.name}") for path in plain]
    for path, target, (half, batch) in zip(plain, source, rows.items(), strict=True):
        reader = Rows("x" if half == "encoder" else "z", batch)
        quantize_static(path, target, reader, quant_format=form, op_types_to_quantize=["Gemm", "MatMul"])
    done = bring(source, tmp_path, sample_file, range=RANGES[0], output="image")
    heads = Session(read_bundle(done.directory).encoder, name="encoder").run({"image": planes[:7]})
    wanted = Session(source[0].read_bytes(), name="int8").run({"x": planes[:7] / np.float32(255)})
    np.testing.assert_allclose(heads["mean"], wanted["mu"], atol=1e-4)
    assert done.round_trip.error < done.round_trip.mean_image_error / 2
