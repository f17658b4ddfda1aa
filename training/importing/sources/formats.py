"""What SOURCE is, and who reads it. Torch and diffusers are imported where a source needs them, and only there."""

from collections.abc import Sequence
from pathlib import Path

from training.errors import ImportRefused
from training.importing.answers import Ask
from training.importing.options import Options
from training.importing.source import Source
from training.importing.sources.onnx_files import read_half
from training.importing.sources.optimum import is_optimum, read_config, read_optimum

PICKLE = b"\x80"
"""First byte of a pickle of any protocol that is in use."""


def read_source(paths: Sequence[Path], options: Options, ask: Ask) -> Source:
    """The model in a directory or in a pair of files, encoder first.

    Raises:
        ImportRefused: it is none that can be read; the message says what is wrong with which file.
    """
    for path in paths:
        if not path.exists():
            raise ImportRefused(f"{path} is absent")
    if len(paths) == 1 and paths[0].is_dir():
        return _read_directory(paths[0], options, ask)
    if len(paths) != 2:
        raise ImportRefused("pass one directory, or two files, encoder and decoder; or --class")
    encoder, decoder = paths
    kinds = {_kind(path) for path in paths}
    if len(kinds) > 1:
        raise ImportRefused(f"{encoder.name} and {decoder.name} are of different kinds: {' and '.join(sorted(kinds))}")
    return _read_pair(kinds.pop(), encoder, decoder, options, ask)


def _read_pair(kind: str, encoder: Path, decoder: Path, options: Options, ask: Ask) -> Source:
    if kind == "ONNX":
        halves = read_half(encoder, is_encoder=True), read_half(decoder, is_encoder=False)
        return Source(*halves, kind="a pair of ONNX files")
    from training.importing.sources.torch_programs import read_programs, read_scripts

    if kind == "program":
        return read_programs(encoder, decoder)
    return read_scripts(encoder, decoder, options, ask)


def _kind(path: Path) -> str:
    """`ONNX`, `program` or `torchscript`."""
    if path.is_dir():
        raise ImportRefused(f"{path} is a directory: pass two files, or one directory alone")
    with path.open("rb") as file:
        start = file.read(4)
    if path.suffix == ".safetensors" or start[:1] == PICKLE:
        what = "a pickle, which is not opened" if start[:1] == PICKLE else "weights without a net"
        raise ImportRefused(f"{path.name} holds {what}: pass --class and --weights")
    if not start.startswith(b"PK"):
        return "ONNX"
    from training.importing.sources.torch_archives import kind_of

    kind = kind_of(path)
    if kind is None or kind == "weights":
        what = "weights without a net: pass --class and --weights" if kind else "neither TorchScript nor a program"
        raise ImportRefused(f"{path.name} holds {what}")
    return kind


def _read_directory(directory: Path, options: Options, ask: Ask) -> Source:
    if is_optimum(directory):
        return read_optimum(directory)
    for place in (directory, directory / "vae"):
        config = place / "config.json"
        if config.is_file() and "_class_name" in read_config(config):
            from training.importing.sources.diffusers_models import read_diffusers

            return read_diffusers(place, options, ask)
    pair = [sorted(directory.glob(f"{half}.*")) for half in ("encoder", "decoder")]
    if all(len(_graphs(files)) == 1 for files in pair):
        return read_source([_graphs(files)[0] for files in pair], options, ask)
    raise ImportRefused(
        f"{directory} holds no model that is known: neither vae_encoder/model.onnx and vae_decoder/model.onnx, nor "
        "diffusers' config.json, nor one encoder and one decoder file"
    )


def _graphs(files: list[Path]) -> list[Path]:
    return [path for path in files if path.suffix in (".onnx", ".pt", ".pt2", ".pth", ".ts")]
