"""`manifest.json`, the only entry point of a bundle: every file that it names has a sha256."""

import hashlib
from typing import Annotated, Any, Literal, get_args

from pydantic import BaseModel, ConfigDict, Field, model_validator

FORMAT = 1
MANIFEST = "manifest.json"

Name = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9._-]*$", max_length=100)]
FileName = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$", max_length=100)]
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
Positive = Annotated[int, Field(gt=0)]
Provider = Literal["any", "cpu", "cuda"]
"""An execution provider, or whichever runs."""
Colour = Annotated[str, Field(pattern=r"^#[0-9a-f]{6}$")]


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)


class Image(_Part):
    """The images of a model. Height and width are null where any size will do."""

    channels: Literal[1, 3]
    """1 for `L`, 3 for `RGB`."""
    height: Positive | None
    """Pixels."""
    width: Positive | None
    """Pixels."""
    mode: Literal["L", "RGB"]
    """Pillow's name of the pixel format: `L` is grey, `RGB` colour."""
    background: Colour = "#000000"
    """`#rrggbb`, under transparent pixels, where a request names no other colour."""

    @model_validator(mode="after")
    def _mode_has_channels(self) -> "Image":
        if self.channels != {"L": 1, "RGB": 3}[self.mode]:
            raise ValueError(f"mode {self.mode} does not have {self.channels} channels")
        return self


class Latent(_Part):
    """The latent space. A null size follows the image's."""

    shape: Annotated[tuple[Positive | None, ...], Field(min_length=1, max_length=3)]
    """Of one latent, without the batch: `[d]` for a vector, `[c, h, w]` for a map; null where it follows the image."""
    stride: Positive | None = None
    """Image pixels a cell of a map, along each side; none of a vector."""
    prior: Literal["standard_normal"] | None = "standard_normal"
    """What latents were made to follow; null where nothing did, so that draws from N(0, I) mean nothing."""
    scaling_factor: float = 1.0
    """For protocols that send latents as (z - shift_factor) * scaling_factor; the graphs take and give z."""
    shift_factor: float = 0.0
    """See `scaling_factor`."""

    @model_validator(mode="after")
    def _maps_have_a_stride(self) -> "Latent":
        if (len(self.shape) == 3) != (self.stride is not None):
            raise ValueError("a latent of three axes has a stride, and no other")
        if len(self.shape) == 2 or self.shape[0] is None or (None in self.shape and self.shape[1:] != (None, None)):
            raise ValueError("a latent is [d], [c, h, w] or [c, null, null]")
        return self


class Tensor(_Part):
    """One input or output of a graph; a null size is variable."""

    dtype: Literal["uint8", "float32"]
    """Of its elements."""
    shape: tuple[int | None, ...]
    """With the batch, which comes first and is null."""


class File(_Part):
    """A file of the bundle and the sha256 of its bytes."""

    file: FileName
    """Its name; it lies beside the manifest."""
    sha256: Sha256
    """Of its bytes, in small hexadecimal digits."""


class GraphFile(File):
    """An ONNX file, its inputs and its outputs."""

    inputs: dict[str, Tensor]
    """Of the encoder `image`, of the decoder `latent`, and no others."""
    outputs: dict[str, Tensor]
    """`mean` and, where there is a posterior, `log_std`; `image` and the likelihood's parameters."""


class GraphFiles(_Part):
    """The two graphs: `image` -> `mean`, `log_std`, and `latent` -> `image` with the likelihood's parameters."""

    encoder: GraphFile
    """From images to their posteriors."""
    decoder: GraphFile
    """From latents to images."""

    @model_validator(mode="after")
    def _tensors_of_the_contract(self) -> "GraphFiles":
        if set(self.encoder.inputs) != {"image"} or not {"mean"} <= set(self.encoder.outputs) <= {"mean", "log_std"}:
            raise ValueError("the encoder must map `image` to `mean` and, where it has a posterior, `log_std`")
        if set(self.decoder.inputs) != {"latent"} or "image" not in self.decoder.outputs:
            raise ValueError("the decoder must map `latent` to `image` and the likelihood's parameters")
        return self


class Array(File):
    """An npy file of the bundle."""

    dtype: Literal["float32", "int64", "uint8"]
    """Of its elements, as the file has them."""
    shape: tuple[int, ...]
    """As the file has it."""


class Reduced(_Part):
    """Graphs with smaller weights, and what those change: these and the graphs that they were made of were run on the
    same held-out images, with the same draws."""

    precision: Literal["fp16-stored", "fp16", "int8"]
    """Of the weights: `fp16-stored` are float16 in the file and float32 in memory, `fp16` are multiplied as float16,
    `int8` as 8-bit integers."""
    encoder: File
    """Its inputs and outputs are those of `graphs.encoder`."""
    decoder: File
    """Its inputs and outputs are those of `graphs.decoder`."""
    source: Positive
    """The version of this model whose graphs were reduced."""
    measured_on: Literal["cpu", "cuda"]
    """The execution provider that all of this was measured on."""
    split: str
    """Where the images are from: a split of the data set, or the name of a folder or file."""
    images: Positive
    """How many."""
    seed: int
    """Of the draws, and of binary pixels."""
    measure: Literal["negative_elbo", "psnr"]
    """In nats, or in dB of the posterior mean's reconstruction where there is no likelihood; the mean over images."""
    change: float
    """Of it, by the reduction."""
    standard_error: float
    """Of that, over the images."""
    bound: float
    """The largest change, up or down and with twice its standard error, that would have been let pass."""
    mean_change: float
    """Largest change of a posterior's mean, in its standard deviations; of encodings without one, in those of all."""
    pixel_change: int
    """Largest change of a pixel of a reconstruction, in grey levels."""
    size: Positive
    """Bytes of both graphs."""
    size_before: Positive
    """Of those that were reduced."""
    speed_alone: float | None = None
    """How many times as fast a row alone goes through what was reduced; null where that ran on another provider."""
    speed_batched: float | None = None
    """The same of many rows at a time."""


class Training(_Part):
    """Where the weights come from."""

    dataset: str
    """Name of the data set."""
    binarization: Literal["dynamic", "static", "none"]
    """How grey pixels became binary: by a draw whenever an image was seen, by one draw for all, or not."""
    recipe: str
    """Path of the recipe, in this repository or in the bundle."""
    epochs: int
    """Passes over the training images."""
    seed: int
    """Of the training's random numbers."""
    commit: str | None = None
    """Commit of this repository that the training ran at."""


class Manifest(_Part):
    """`manifest.json`, format 1."""

    format: Literal[1] = 1
    """Version of this contract."""
    name: Name
    """What requests call the model, and the name of the directory above the bundle."""
    version: Positive
    """The name of the bundle's directory. Of several, the highest answers requests that name none."""
    description: str
    """One sentence about the model."""
    license: str
    """Of the weights, an SPDX identifier."""
    created: str
    """Date and time of the export, ISO 8601, UTC."""
    image: Image
    """What the images are."""
    latent: Latent
    """What the latents are."""
    likelihood: Literal["bernoulli", "gaussian", "discretized_logistic"]
    """p(x|z), whose parameters the decoder gives."""
    graphs: GraphFiles
    """The nets."""
    reduced: dict[str, Reduced] = {}
    """Graphs with smaller weights, by the execution provider that takes them in place of `graphs`: `cpu`, `cuda`; or
    `any`, which tells that `graphs` are such themselves."""
    classes: tuple[str, ...] = ()
    """What the labels 0, 1, ... are called, where they are more than numbers."""
    arrays: dict[str, Array] = {}
    """What the server knows beside them, by name. Names that it does not know are verified and left alone."""
    training: Training
    """How the weights came to be."""
    metrics: dict[str, Any] = {}
    """Measured through these graphs on held-out images, in nats an image; the server reads `kl_per_dimension` alone."""

    @model_validator(mode="after")
    def _reduced_for_providers(self) -> "Manifest":
        taken, reduced = self.graphs, self.reduced.get("any")
        if not self.reduced.keys() <= set(get_args(Provider)):
            raise ValueError(f"graphs are reduced for one of {', '.join(get_args(Provider))}")
        if reduced and (reduced.encoder.sha256, reduced.decoder.sha256) != (taken.encoder.sha256, taken.decoder.sha256):
            raise ValueError("what is reduced for any provider are `graphs` themselves")
        return self

    @property
    def stochastic(self) -> bool:
        """Whether the encoder has a posterior; a plain autoencoder has none."""
        return "log_std" in self.graphs.encoder.outputs

    @property
    def digest(self) -> str:
        """sha256 of the manifest, which holds every file's: the same bundle, the same digest."""
        return hashlib.sha256(self.model_dump_json().encode()).hexdigest()

    @property
    def files(self) -> dict[str, str]:
        """Every named file and its sha256."""
        pairs: list[GraphFiles | Reduced] = [self.graphs, *self.reduced.values()]
        graphs = [file for pair in pairs for file in (pair.encoder, pair.decoder)]
        return {part.file: part.sha256 for part in (*graphs, *self.arrays.values())}

    def graphs_of(self, provider: Provider) -> tuple[File, File]:
        """Encoder and decoder that an execution provider takes."""
        taken = self.reduced.get(provider, self.graphs)
        return taken.encoder, taken.decoder
