"""Torch's sources: a class with weights, TorchScript, `torch.export` programs; and no pickle that is opened."""

import io
import pickle
import warnings
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from app.bundle.files import Bundle, read_bundle
from app.inference.session import Session
from tests.conftest import Pixels
from tests.training.importing import nets
from tests.training.importing.foreign import bring
from training.errors import ImportRefused
from training.importing.options import RANGES, TorchClass
from training.importing.sources import onnx_files
from training.importing.sources.torch_class import build
from training.importing.sources.torch_weights import load_weights, read_weights
from training.offline import OfflineGraphs

PATH = "tests.training.importing.nets"
SIZE = (1, 8, 8)


@pytest.fixture(scope="module")
def small(digits: Pixels) -> Pixels:
    """Digits of 8 x 8 pixels, uint8 `[64, 1, 8, 8]`."""
    return np.ascontiguousarray(digits[:64, None, 2:26:3, 2:26:3])


def bring_class(recipe: TorchClass, folder: Path, **options: Any) -> Bundle:
    return read_bundle(bring(recipe, folder, **({"image": SIZE} | options)).directory)


def check(bundle: Bundle, model: nets.Vae, images: Pixels) -> None:
    """Against what the heads say that are inside of all of them."""
    graphs = OfflineGraphs(bundle)
    with torch.no_grad():
        mean, log_variance = nets.Vae.encode(model, torch.from_numpy(images.reshape(-1, 64) / np.float32(255)))
        decoded = nets.Vae.decode(model, mean).numpy()
    posterior = graphs.encode(images)
    assert posterior.log_std is not None
    np.testing.assert_allclose(posterior.mean, mean.numpy(), atol=1e-4)
    np.testing.assert_allclose(posterior.log_std, 0.5 * log_variance.numpy(), atol=1e-4)
    assert np.abs(graphs.decode(mean.numpy()).astype(int) - np.rint(255 * decoded)).max() <= 1


@pytest.mark.parametrize("name", ["Vae", "Named", "Distribution", "Drawing", "Flat"])
def test_a_class_is_brought_whatever_its_encoder_gives(small: Pixels, tmp_path: Path, name: str) -> None:
    torch.manual_seed(1)
    model = getattr(nets, name)(latent=4)
    torch.save(model.state_dict(), tmp_path / "weights.pt")
    recipe = TorchClass(f"{PATH}:{name}", ["latent=4"], [tmp_path / "weights.pt"])
    options = {"posterior": "log-variance"} if name in ("Vae", "Flat") else {}
    bundle = bring_class(recipe, tmp_path / "models", **options)
    assert (bundle.manifest.latent.shape, bundle.manifest.image.height) == ((4,), 8)
    check(bundle, model, small)


def test_a_sigmoid_that_is_told_to_be_a_likelihood_has_logits(tmp_path: Path) -> None:
    bundle = bring_class(TorchClass(f"{PATH}:Named"), tmp_path, output="probabilities")
    assert (bundle.manifest.likelihood, "logits" in bundle.manifest.graphs.decoder.outputs) == ("bernoulli", True)


def test_parts_of_other_names_and_a_map(small: Pixels, tmp_path: Path) -> None:
    recipe = TorchClass(f"{PATH}:Parts", encoder="down", decoder="up")
    bundle = bring_class(recipe, tmp_path, range=RANGES[1], output="image")
    latent = bundle.manifest.latent
    assert (latent.shape, latent.stride, latent.prior, bundle.manifest.stochastic) == ((2, 2, 2), 4, None, False)
    assert Session(bundle.encoder, name="encoder").run({"image": small[:7]})["mean"].shape == (7, 2, 2, 2)


def test_a_net_of_any_size(tmp_path: Path) -> None:
    recipe = TorchClass(f"{PATH}:Parts", encoder="down", decoder="up")
    bundle = bring_class(recipe, tmp_path, range=RANGES[1], output="image", image=(1, None, None))
    assert (bundle.manifest.latent.shape, bundle.manifest.latent.stride) == ((2, None, None), 4)
    image = np.zeros((3, 1, 12, 20), np.uint8)
    latents = Session(bundle.encoder, name="encoder").run({"image": image})["mean"]
    assert latents.shape == (3, 2, 3, 5)
    assert Session(bundle.decoder, name="decoder").run({"latent": latents})["image"].shape == image.shape


def scripts(folder: Path, model: nets.Vae) -> list[Path]:
    paths = [folder / "encoder.pt", folder / "decoder.pt"]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that TorchScript is deprecated
        torch.jit.trace(nets.Encoder(model), torch.zeros(2, *SIZE)).save(paths[0])
        torch.jit.trace(nets.Decoder(model), torch.zeros(2, 3)).save(paths[1])
    return paths


def programs(folder: Path, model: nets.Vae, *, free: bool = True) -> list[Path]:
    paths = [folder / "encoder.pt2", folder / "decoder.pt2"]
    shapes: Any = ({0: torch.export.Dim("batch")},) if free else None
    for path, net, example in (
        (paths[0], nets.Encoder(model), torch.zeros(2, *SIZE)),
        (paths[1], nets.Decoder(model), torch.zeros(2, 3)),
    ):
        torch.export.save(torch.export.export(net.eval(), (example,), dynamic_shapes=shapes), path)
    return paths


def test_torchscript(small: Pixels, tmp_path: Path) -> None:
    torch.manual_seed(2)
    model = nets.Vae()
    done = bring(scripts(tmp_path, model), tmp_path, image=SIZE, posterior="log-variance")
    check(read_bundle(done.directory), model, small)
    with pytest.raises(ImportRefused, match="asked for image"):
        bring(scripts(tmp_path, model), tmp_path, posterior="log-variance")


@pytest.mark.parametrize("free", [True, False])
def test_programs(small: Pixels, tmp_path: Path, free: bool) -> None:
    torch.manual_seed(3)
    model = nets.Vae()
    done = bring(programs(tmp_path, model, free=free), tmp_path, posterior="log-variance")
    check(read_bundle(done.directory), model, small)


class Touch:
    """What runs code when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return Path.touch, (self.path,)


@pytest.mark.parametrize("kind", ["pickle", "torch", "sample inputs", "constants", "use_pickle"])
def test_no_pickle_is_opened(tmp_path: Path, kind: str) -> None:
    touched, evil = tmp_path / "touched", tmp_path / "evil.pt"
    content = io.BytesIO()
    torch.save({"weights": Touch(touched)}, content)
    if kind in ("pickle", "torch"):
        evil.write_bytes(pickle.dumps(Touch(touched)) if kind == "pickle" else content.getvalue())
        with pytest.raises(ImportRefused, match=r"evil\.pt is a pickle that holds more than weights"):
            read_weights(evil)
        with pytest.raises(ImportRefused, match=r"evil\.pt holds"):
            bring([evil, evil], tmp_path)
        assert not touched.exists()
        return
    paths = programs(tmp_path, nets.Vae())
    change = {
        "sample inputs": {"data/sample_inputs/model.pt": content.getvalue()},
        "constants": {"data/constants/opaque_obj_0": pickle.dumps(Touch(touched))},
        "use_pickle": {
            "data/weights/model_weights_config.json": (
                b'{"config": {"a": {"path_name": "weight_0", "use_pickle": true}}}'
            )
        },
    }[kind]
    rewrite(paths[0], change)
    with pytest.raises(ImportRefused, match=r"encoder\.pt2 holds a pickle or another part that is not opened"):
        bring(paths, tmp_path, posterior="log-variance")
    assert not touched.exists()


def rewrite(path: Path, change: dict[str, bytes]) -> None:
    """Put other members into an archive."""
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    folder = next(iter(members)).partition("/")[0]
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in (members | {f"{folder}/{name}": part for name, part in change.items()}).items():
            archive.writestr(name, content)


@pytest.mark.parametrize("form", ["torch", "safetensors", "checkpoint", "prefixed", "prefixed twice"])
def test_weights_of_every_form(tmp_path: Path, form: str) -> None:
    state = nets.Vae().state_dict()
    path = tmp_path / ("weights.safetensors" if form == "safetensors" else "weights.pt")
    if form == "safetensors":
        save_file(state, path)
    else:
        prefixed = {f"model.{name}": tensor for name, tensor in state.items()}
        twice = {f"model.module.{name}": tensor for name, tensor in state.items()}
        content = {
            "torch": state,
            "checkpoint": {"epoch": 3, "state_dict": state},
            "prefixed": prefixed,
            "prefixed twice": {"model": twice},
        }[form]
        torch.save(content, path)
    model = nets.Vae()
    load_weights(model, [(path.name, read_weights(path))])
    assert all(torch.equal(tensor, state[name]) for name, tensor in model.state_dict().items())


@pytest.mark.parametrize("prefix", ["", "module."])
@pytest.mark.parametrize("order", [("down", "up"), ("up", "down")])
def test_weights_of_each_part_in_a_file(tmp_path: Path, prefix: str, order: tuple[str, str]) -> None:
    trained = nets.Parts()
    for part in order:
        state = getattr(trained, part).state_dict()
        torch.save({f"{prefix}{name}": tensor for name, tensor in state.items()}, tmp_path / f"{part}.pt")
    model = nets.Parts()
    load_weights(model, [(part, read_weights(tmp_path / f"{part}.pt")) for part in order])
    assert all(torch.equal(tensor, trained.state_dict()[name]) for name, tensor in model.state_dict().items())
    with pytest.raises(ImportRefused, match=r"down and down do not have `0\.bias` as the class has it"):
        load_weights(model, [("down", read_weights(tmp_path / "down.pt"))] * 2)


@pytest.mark.parametrize("prefix", ["", "up.", "net.up.0."])
@pytest.mark.parametrize("files", [("up.pt", "down.pt"), ("my_down-3.pt", "my_up-3.pt"), ("a.pt", "b.pt")])
def test_weights_that_fit_both_parts_go_where_a_name_says(files: tuple[str, str], prefix: str) -> None:
    trained, model = (
        nn.ModuleDict({"net": nn.ModuleDict({"down": nn.Linear(4, 4), "up": nn.Linear(4, 4)})}) for _ in "ab"
    )
    names = ["up", "down"] if "up" in files[0] else ["down", "up"]
    parts = []
    for file, name in zip(files, names, strict=True):
        state = trained["net"][name].state_dict()  # type: ignore[index]
        parts.append((file, {f"{prefix.replace('up', name)}{key}": tensor for key, tensor in state.items()}))
    if files[0] == "a.pt" and not prefix:
        with pytest.raises(
            ImportRefused, match=r"the weights in a\.pt fit net\.down and net\.up: rename the file after"
        ):
            load_weights(model, parts)
        return
    load_weights(model, parts)
    assert all(torch.equal(tensor, trained.state_dict()[name]) for name, tensor in model.state_dict().items())


def test_a_whole_module_is_answered_with_the_line_that_saves_its_weights(tmp_path: Path) -> None:
    path = tmp_path / "model.pt"
    torch.save(nets.Vae(), path)
    with pytest.raises(ImportRefused, match="or a whole module in a pickle: pass --class") as caught:
        bring([path], tmp_path)
    line = f"torch.save(torch.load('{path}', map_location='cpu', weights_only=False).state_dict(), 'weights.pt'). If"
    assert f"save its weights first: {line} it holds a checkpoint" in str(caught.value)
    with pytest.raises(ImportRefused, match=r"more than weights, which is not opened") as caught:
        read_weights(path)
    assert f"save its weights alone: {line} it holds a checkpoint" in str(caught.value)


def test_a_folder_of_pythae_is_answered_with_the_line_that_imports_it(tmp_path: Path) -> None:
    folder = tmp_path / "run" / "final_model"
    folder.mkdir(parents=True)
    (folder / "model_config.json").write_text('{"name": "VAEConfig"}')
    message = rf"pass --class pythae\.models:AutoModel\.load_from_folder --arg dir_path={folder} --image CxHxW"
    for given in (tmp_path / "run", folder):
        with pytest.raises(ImportRefused, match=message):
            bring([given], tmp_path)


def test_a_model_in_a_folder_of_its_directory(tmp_path: Path) -> None:
    folder = tmp_path / "run" / "final_model"
    folder.mkdir(parents=True)
    scripts(folder, nets.Vae())
    done = bring([tmp_path / "run"], tmp_path, image=SIZE, posterior="log-variance")
    assert done.source.kind == "TorchScript files"


def test_one_file_is_answered_with_what_to_pass(tmp_path: Path) -> None:
    (script, _) = scripts(tmp_path, nets.Vae())
    with pytest.raises(ImportRefused, match="export its encoder and its decoder to a file each"):
        bring([script], tmp_path)


def test_weights_that_do_not_fit(tmp_path: Path) -> None:
    state = nets.Vae().state_dict()
    with pytest.raises(ImportRefused, match=r"w\.pt does not have `back\.0\.bias` as the class has it; 1 in all"):
        load_weights(nets.Vae(), [("w.pt", {name: tensor for name, tensor in state.items() if name != "back.0.bias"})])
    with pytest.raises(ImportRefused, match=r"w\.pt does not have `mean\.weight` as the class has it"):
        load_weights(nets.Vae(latent=5), [("w.pt", dict(state))])
    (tmp_path / "w.safetensors").write_bytes(b"none")
    (tmp_path / "w.pt").write_bytes(b"none")
    for name in ("w.safetensors", "w.pt"):
        with pytest.raises(ImportRefused, match=name):
            read_weights(tmp_path / name)
    with pytest.raises(ImportRefused, match="is absent"):
        read_weights(tmp_path / "none.pt")


@pytest.mark.parametrize(
    ("path", "arguments", "message"),
    [
        ("nets", [], "written as package.module:Class"),
        ("nowhere:Vae", [], "nowhere:Vae cannot be made: No module named 'nowhere'"),
        (f"{PATH}:Nothing", [], "cannot be made: module .* has no attribute 'Nothing'"),
        (f"{PATH}:Vae", ["size=3"], "cannot be made: .* unexpected keyword argument 'size'"),
        (f"{PATH}:Vae", ["latent"], "written as name=value"),
        (f"{PATH}:number", [], "does not make a torch module"),
    ],
)
def test_a_class_that_cannot_be_made(path: str, arguments: list[str], message: str) -> None:
    with pytest.raises(ImportRefused, match=message):
        build(TorchClass(path, arguments))


def test_a_class_that_does_not_fit(tmp_path: Path) -> None:
    with pytest.raises(ImportRefused, match="Parts has neither encode nor encoder: name its part with --encoder"):
        bring_class(TorchClass(f"{PATH}:Parts"), tmp_path)
    for path in ("missing", "training", "body.missing"):
        message = f"Named has no `{path}`: name its part with --encoder. It has body, mean, log_variance, back, decode"
        with pytest.raises(ImportRefused, match=message):
            bring_class(TorchClass(f"{PATH}:Named", encoder=path), tmp_path)
    with pytest.raises(ImportRefused, match=r"the encoder does not take images \[2, 3, 9, 9\]"):
        bring_class(TorchClass(f"{PATH}:Vae"), tmp_path, image=(3, 9, 9))
    with pytest.raises(ImportRefused, match="the decoder takes none of the encoder's outputs"):
        bring_class(TorchClass(f"{PATH}:Vae", decoder="encode"), tmp_path)
    assert isinstance(build(TorchClass(f"{PATH}:Parts")), nn.Module)


def test_a_huge_net(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(onnx_files, "MAX_BYTES", 1000)
    with pytest.raises(ImportRefused, match="the encoder is too large: one ONNX file holds at most 2 GiB"):
        bring_class(TorchClass(f"{PATH}:Vae"), tmp_path, range=RANGES[0], output="image", posterior="log-variance")
    assert list(tmp_path.iterdir()) == []


def test_nan_among_the_weights(tmp_path: Path) -> None:
    state = nets.Vae().state_dict()
    state["mean.bias"][0] = torch.nan
    torch.save(state, tmp_path / "weights.pt")
    recipe = TorchClass(f"{PATH}:Vae", weights=[tmp_path / "weights.pt"])
    with pytest.raises(ImportRefused, match=r"the encoder has NaN among its weights: `module\.mean\.bias`"):
        bring_class(recipe, tmp_path, posterior="log-variance")


def test_a_class_of_a_module_with_any_file_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "01-my_vae.py").write_text("from torch import nn\n\n\nclass Outer:\n    Net = nn.Identity\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    assert isinstance(build(TorchClass("01-my_vae:Outer.Net")), torch.nn.Identity)
