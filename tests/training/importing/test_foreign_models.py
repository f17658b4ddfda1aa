"""Models of other code bases, as their users save them."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pythae.models import VAE, VAE_IAF, VAMP, VQVAE, VAE_IAF_Config, VAEConfig, VAMPConfig, VQVAEConfig

from app.bundle.files import read_bundle
from app.inference.session import Session
from tests.conftest import Pixels
from tests.training.importing.foreign import Imported, bring
from training.errors import ImportRefused
from training.importing.options import TorchClass
from training.importing.report import figures, warnings

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
