"""Detect the format of a source and read it. Torch and diffusers are imported only for sources that need them."""

from collections.abc import Sequence
from pathlib import Path

from training.errors import ImportRefused
from training.importing.options import ImportOptions, TorchClass
from training.importing.prompt import Ask
from training.importing.source import SAVE_WEIGHTS, Source
from training.importing.sources.onnx_files import read_graph
from training.importing.sources.optimum import is_optimum, read_config, read_optimum

PICKLE = b"\x80"
"""First byte of a pickle of protocol 2 or newer."""
FOLDERS = ("", "vae", "final_model")
"""Folders of a directory that may hold its model."""
GRAPH_SUFFIXES = (".onnx", ".pt", ".pt2", ".pth", ".ts")


def read_source(source: TorchClass | Sequence[Path], options: ImportOptions, ask: Ask) -> Source:
    """Read a model from a class, a directory, or a pair of files, encoder first.

    Raises:
        BundleError: ONNX Runtime cannot load a graph.
        ImportRefused: the model cannot be read; the message says what is wrong with which file.
    """
    if isinstance(source, TorchClass):
        from training.importing.sources.torch_class import read_class

        return read_class(source, options, ask)
    for path in source:
        if not path.exists():
            raise ImportRefused(f"{path} is absent")
    if len(source) == 1 and source[0].is_dir():
        return _read_directory(source[0], options, ask)
    formats = {_format_of(path) for path in source}
    if len(source) != 2:
        raise ImportRefused(
            "pass one directory, or two files, encoder and decoder; or --class. Of a file that holds the whole model, "
            "export its encoder and its decoder to a file each"
        )
    encoder, decoder = source
    if len(formats) > 1:
        raise ImportRefused(
            f"{encoder.name} and {decoder.name} are of different formats: {' and '.join(sorted(formats))}"
        )
    (file_format,) = formats
    if file_format == "ONNX":
        graphs = read_graph(encoder, is_encoder=True), read_graph(decoder, is_encoder=False)
        return Source(*graphs, kind="a pair of ONNX files")
    from training.importing.sources.torch_programs import read_programs, read_scripts

    return read_programs(encoder, decoder) if file_format == "program" else read_scripts(encoder, decoder, options, ask)


def _format_of(path: Path) -> str:
    """`ONNX`, `program` or `torchscript`."""
    if path.is_dir():
        raise ImportRefused(f"{path} is a directory: pass two files, or one directory alone")
    with path.open("rb") as file:
        start = file.read(4)
    if start[:1] == PICKLE:
        raise ImportRefused(f"{path.name} holds a pickle, which is not opened: {_weights_line(path)}")
    if path.suffix == ".safetensors":
        raise ImportRefused(
            f"{path.name} holds weights without a model: pass --class package.module:Class --weights {path}"
        )
    if not start.startswith(b"PK"):
        return "ONNX"
    from training.importing.sources.torch_archives import format_of

    archive_format = format_of(path)
    if archive_format == "weights":
        raise ImportRefused(f"{path.name} holds weights, or a whole module in a pickle: {_weights_line(path)}")
    if archive_format is None:
        raise ImportRefused(f"{path.name} holds neither TorchScript nor a program")
    return archive_format


def _weights_line(path: Path) -> str:
    return (
        f"pass --class package.module:Class --weights {path}. If it holds a whole module and you trust it, save its "
        f"weights first: {SAVE_WEIGHTS.format(str(path))}"
    )


def _read_directory(directory: Path, options: ImportOptions, ask: Ask) -> Source:
    folders = [directory / name for name in FOLDERS if (directory / name).is_dir()]
    for folder in folders:
        if is_optimum(folder):
            return read_optimum(folder)
        config = folder / "config.json"
        if config.is_file() and "_class_name" in read_config(config):
            from training.importing.sources.diffusers_models import read_diffusers

            return read_diffusers(folder, options, ask)
        pair = [
            [path for path in sorted(folder.glob(f"{name}.*")) if path.suffix in GRAPH_SUFFIXES]
            for name in ("encoder", "decoder")
        ]
        if all(len(files) == 1 for files in pair):
            return read_source([*pair[0], *pair[1]], options, ask)
        if (folder / "model_config.json").is_file():
            raise ImportRefused(
                f"{directory} holds a model of pythae: pass --class pythae.models:AutoModel.load_from_folder --arg "
                f"dir_path={folder} --image CxHxW instead of it"
            )
    raise ImportRefused(
        f"{directory} holds no known model: neither vae_encoder/model.onnx and vae_decoder/model.onnx, nor diffusers' "
        "config.json, nor one encoder and one decoder file"
    )
