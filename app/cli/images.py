"""Images that a model made, in every format that a command can write or show."""

import base64
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from app.cli.client import ServedVersion
from app.cli.outputs import Output
from app.cli.terminal import draw, drawing_width, note
from app.codecs.decimals import listed
from app.codecs.images import Pixels, Reading, read_images, tile, write_animation, write_image
from app.codecs.npy import write_npy, write_npz

FORMATS = ("png", "webp", "gif", "npy", "npz", "")
FRAME_MILLISECONDS = 80
_MAX_PIXELS = 2**30
"""Maximum pixels of all images of a response; the server has its own limit."""


@dataclass(frozen=True)
class MadeImages:
    """Images `[N, H, W, C]`, the model that made them, and their arrays and file names."""

    pixels: Pixels
    served: ServedVersion
    extra: dict[str, Any] = field(default_factory=dict)
    """Latents, seed and other values, by their names in the server's responses."""
    files: dict[str, str] = field(default_factory=dict)
    """For each of the N files that the images were made from, if any, the name of its file in a folder."""
    originals: Pixels | None = None
    """Original images `[N, H, W, C]`, which a grid shows above the model's images."""

    @classmethod
    def parse(cls, response: dict[str, Any], served: ServedVersion) -> "MadeImages":
        """Parse a JSON response of the server with `images` and other arrays."""
        contents = [base64.b64decode(text) for text in response["images"]]
        mode = served.manifest["image"]["mode"]
        reading = Reading(height=None, width=None, mode=mode, max_pixels=_MAX_PIXELS)
        extra = {name: value for name, value in response.items() if name not in ("images", *served.query)}
        shape = extra.pop("latent_shape", [-1])
        extra["latents"] = np.array(extra["latents"], np.float32).reshape(len(contents), *shape)
        return cls(read_images(contents, reading), served, extra)

    def deliver(self, output: Output, *, columns: int | None = None, milliseconds: int | None = None) -> None:
        """Write the images, or without `--output` draw them in the terminal or print JSON.

        A gif is an animation; so is a webp with `milliseconds`, the duration of a frame.

        Raises:
            CommandError: the output cannot be written.
        """
        if output.name is None:
            self._show(columns)
        elif output.format == "":
            files = self.files.values() or numbered(len(self.pixels))
            output.fill({name: write_image(pixels) for name, pixels in zip(files, self.pixels, strict=True)})
        else:
            output.write(self._encode(output.format, columns, milliseconds))
        count = f"{len(self.pixels)} image{'s' * (len(self.pixels) > 1)} of {self.served.name} {self.served.version}"
        seed = f", seed {self.extra['seed']}" if "seed" in self.extra else ""
        if output.name is not None or drawing_width():
            note(f"{output.name or 'drawn'}: {count}{seed}")

    def _show(self, columns: int | None) -> None:
        if width := drawing_width():
            fitting = max(1, width // self.pixels.shape[2])
            draw(self._grid(min(columns or fitting, fitting)))
        else:
            images = [base64.b64encode(write_image(pixels)).decode() for pixels in self.pixels]
            print_json({**self._arrays(), "images": images})

    def _encode(self, format: str, columns: int | None, milliseconds: int | None) -> bytes:
        images = self.pixels[..., 0] if self.pixels.shape[-1] == 1 else self.pixels
        if format == "npy":
            return write_npy(images)
        if format == "npz":
            return write_npz({"images": images, **self._arrays()})
        if format == "gif" or (format == "webp" and milliseconds):
            return write_animation(self.pixels, format, milliseconds or FRAME_MILLISECONDS)
        return write_image(self._grid(columns), format)

    def _grid(self, columns: int | None) -> Pixels:
        """One image `[H, W, C]` of all images; each row of originals stands above the row of their reconstructions."""
        if self.originals is None:
            return tile(self.pixels, columns)
        pairs = np.concatenate([self.originals, self.pixels], axis=1)
        return tile(pairs, columns or max(1, math.isqrt(2 * len(pairs))))

    def _arrays(self) -> dict[str, Any]:
        files = {"files": list(self.files)} if self.files else {}
        return {**files, **self.extra, **self.served.query}


def numbered(count: int) -> list[str]:
    """Names of PNG files by number, with leading zeros."""
    return [f"{number}.png" for number in _numbers(count)]


def file_names(sources: Sequence[str]) -> dict[str, str]:
    """The PNG file name for each source file: its own stem, with a number in front if two sources share a stem."""
    stems = [Path(name).stem for name in sources]
    if len(set(stems)) < len(stems):
        stems = [f"{number}-{stem}" for number, stem in zip(_numbers(len(stems)), stems, strict=True)]
    return {name: f"{stem}.png" for name, stem in zip(sources, stems, strict=True)}


def _numbers(count: int) -> list[str]:
    digits = len(str(count - 1))
    return [f"{index:0{digits}}" for index in range(count)]


def print_json(document: dict[str, Any]) -> None:
    """Print JSON as the server writes it: arrays become lists, and maps flat lists with `latent_shape` beside them."""
    shapes = [value.shape[1:] for value in document.values() if isinstance(value, np.ndarray) and value.ndim > 2]
    if shapes:
        document = document | {"latent_shape": shapes[0]}
    print(json.dumps(document, default=listed))
