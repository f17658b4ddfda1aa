"""Images that a model made, in every form that a command can give them."""

import base64
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from app.cli.client import Served
from app.cli.outputs import Output
from app.cli.terminal import can_draw, draw, note, width
from app.codecs.images import Pixels, Reading, read_images, tile, write_animation, write_image
from app.codecs.npy import write_npy, write_npz

FORMS = ("png", "webp", "gif", "npy", "npz", "")
FRAME_MILLISECONDS = 80
_MOST_PIXELS = 2**30
"""Of all pictures of an answer, which the server has bounded."""


@dataclass(frozen=True)
class Pictures:
    """Images `[N, H, W, C]`, the model that made them, and what else there is to tell."""

    pixels: Pixels
    served: Served
    known: dict[str, NDArray[Any]] = field(default_factory=dict)
    """Latents, seed and so on, by the names of the server's answers."""
    names: list[str] = field(default_factory=list)
    """Of the files that they are made from,"""
    files: list[str] = field(default_factory=list)
    """and of those that they become in a folder; numbers without."""
    above: Pixels | None = None
    """What is shown above each in a grid."""

    @classmethod
    def of(cls, answer: dict[str, Any], served: Served) -> "Pictures":
        """Of a server's JSON answer with `images`, and perhaps `latents`, `seed` and more."""
        contents = [base64.b64decode(text) for text in answer["images"]]
        mode = served.manifest["image"]["mode"]
        reading = Reading(height=None, width=None, mode=mode, max_pixels=_MOST_PIXELS)
        known = {name: np.array(value) for name, value in answer.items() if name not in ("images", "model", "version")}
        if "latents" in known:
            known["latents"] = known["latents"].astype(np.float32)
        return cls(read_images(contents, reading), served, known)

    def grid(self, columns: int | None) -> Pixels:
        """One picture `[H, W, C]` of all."""
        if self.above is None:
            return tile(self.pixels, columns)
        columns = min(columns or max(1, math.isqrt(2 * len(self.pixels))), len(self.pixels))
        blank = np.zeros((-len(self.pixels) % columns, *self.pixels.shape[1:]), np.uint8)
        rows = [
            np.concatenate([images, blank]).reshape(-1, columns, *blank.shape[1:])
            for images in (self.above, self.pixels)
        ]
        return tile(np.stack(rows, axis=1).reshape(-1, *blank.shape[1:]), columns)

    def deliver(
        self,
        output: Output | None,
        *,
        columns: int | None = None,
        milliseconds: int = FRAME_MILLISECONDS,
        moving: bool = False,
    ) -> None:
        """Write them, or draw them, or print JSON; `moving` makes a webp an animation, as a gif always is."""
        if output is None:
            self._show(columns)
        elif output.form == "":
            files = self.files or numbered(len(self.pixels))
            output.fill({name: write_image(pixels) for name, pixels in zip(files, self.pixels, strict=True)})
        else:
            output.write(self._encoded(output.form, columns, milliseconds, moving))
        count = f"{len(self.pixels)} picture{'s' * (len(self.pixels) > 1)} of {self.served.name} {self.served.version}"
        seed = f", seed {self.known['seed']}" if "seed" in self.known else ""
        if output is not None or can_draw():
            note(f"{output.name if output else 'drawn'}: {count}{seed}")

    def _encoded(self, form: str, columns: int | None, milliseconds: int, moving: bool) -> bytes:
        if form == "npy":
            return write_npy(self._array())
        if form == "npz":
            return write_npz({"images": self._array(), **self._told()})
        if form == "gif" or (form == "webp" and moving):
            return write_animation(self.pixels, form, milliseconds)
        return write_image(self.grid(columns), form)

    def _array(self) -> Pixels:
        """`[N, H, W]` where they are grey."""
        return self.pixels[..., 0] if self.pixels.shape[-1] == 1 else self.pixels

    def _told(self) -> dict[str, NDArray[Any]]:
        files = {"files": np.array(self.names)} if self.names else {}
        return {**files, **self.known, **{name: np.array(value) for name, value in self.served.query.items()}}

    def _show(self, columns: int | None) -> None:
        if can_draw():
            fitting = max(1, width() // self.pixels.shape[2])
            draw(self.grid(min(columns or fitting, fitting)))
            return
        images = [base64.b64encode(write_image(pixels)).decode() for pixels in self.pixels]
        print_json({**self._told(), "images": images})


def numbered(count: int) -> list[str]:
    """File names of pictures that are made from no others."""
    return [f"{number}.png" for number in _numbers(count)]


def called_as(names: Sequence[str]) -> dict[str, str]:
    """The file name of what is made from each of some files: its own, numbered where two would share it."""
    stems = [Path(name).stem for name in names]
    if len(set(stems)) < len(stems):
        stems = [f"{number}-{stem}" for number, stem in zip(_numbers(len(stems)), stems, strict=True)]
    return {name: f"{stem}.png" for name, stem in zip(names, stems, strict=True)}


def _numbers(count: int) -> list[str]:
    digits = len(str(count - 1))
    return [f"{index:0{digits}}" for index in range(count)]


def print_json(document: dict[str, Any]) -> None:
    """Print JSON; arrays become lists."""
    print(json.dumps(document, default=lambda array: array.tolist()))


def target_of(output: str | None, stdout_form: str) -> Output | None:
    """Where pictures go that `--output` names; None where it is absent. Raises UsageError as `Output.parse`."""
    return None if output is None else Output.parse(output, FORMS, stdout_form)
