"""`manifest.json`, the only entry point of a bundle: every file that it names has a sha256."""

import hashlib
from typing import Annotated, Any, Literal, NamedTuple, get_args

from pydantic import BaseModel, ConfigDict, Field, model_validator
from typing_extensions import TypeAliasType

FORMAT = 1
MANIFEST = "manifest.json"

Name = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9._-]*$", max_length=100)]
FileName = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$", max_length=100)]
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
Positive = Annotated[int, Field(gt=0)]
Provider = Literal["any", "cpu", "cuda"]
"""An execution provider; `any` stands for all of them."""
ExecutionProvider = TypeAliasType("ExecutionProvider", Literal["cpu", "cuda"])
"""ONNX Runtime's execution provider."""
Resampling = Literal["nearest", "box", "bilinear", "hamming", "bicubic", "lanczos"]
Color = Annotated[str, Field(pattern=r"^#[0-9a-f]{6}$")]


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)


class Image(_Part):
    """The images of a model. Height and width are null if images may be of any size."""

    channels: Literal[1, 3]
    """Channels of a pixel: 1 for `L`, 3 for `RGB`."""
    height: Positive | None
    """Height in pixels."""
    width: Positive | None
    """Width in pixels."""
    mode: Literal["L", "RGB"]
    """Pillow's name of the pixel format: `L` is gray, `RGB` is color."""
    background: Color = "#000000"
    """Color under transparent pixels, `#rrggbb`, unless a request names another."""
    resampling: Resampling = "lanczos"
    """Pillow's filter that images of other sizes are resized with, as in training."""

    @model_validator(mode="after")
    def _mode_has_channels(self) -> "Image":
        if self.channels != {"L": 1, "RGB": 3}[self.mode]:
            raise ValueError(f"mode {self.mode} does not have {self.channels} channels")
        return self


class Tiles(_Part):
    """What tiles change in a large image, and the memory that it takes in one piece, as an import measured them."""

    levels: Annotated[int, Field(ge=0)]
    """Largest difference of a pixel in tiles from the same in one piece, in gray levels. Above 1, the server runs an
    image in one piece if its memory is within `VAE_WHOLE_BYTES`."""
    bytes_per_pixel: Annotated[int, Field(ge=0)]
    """Bytes that a graph takes for each pixel of an image in one piece."""
    bytes_per_megapixel_squared: Annotated[int, Field(ge=0)] = 0
    """For graphs with attention: bytes for an image of a million pixels, growing with the square of the pixels."""

    def bytes_in_one_piece(self, pixels: int) -> float:
        """Bytes that a graph takes for an image of so many pixels in one piece."""
        return self.bytes_per_pixel * pixels + self.bytes_per_megapixel_squared * (pixels / 1e6) ** 2


class Latent(_Part):
    """The latent space. A size is null if it follows from the size of the image."""

    shape: Annotated[tuple[Positive | None, ...], Field(min_length=1, max_length=3)]
    """Shape of one latent, without the batch: `[d]` for a vector, `[c, h, w]` for a map."""
    stride: Positive | None = None
    """Image pixels per cell of a map, along each side; null for a vector."""
    prior: Literal["standard_normal"] | None = "standard_normal"
    """Distribution that training fitted the latents to; null if none: draws from N(0, I) are then meaningless."""
    scaling_factor: float | tuple[float, ...] = 1.0
    """Scale for protocols that send latents as (z - shift_factor) * scaling_factor: a number, or one per channel (per
    dimension of a vector). The graphs use z itself."""
    shift_factor: float | tuple[float, ...] = 0.0
    """Shift for the same protocols as `scaling_factor`, in the same form."""
    margin: Annotated[int, Field(ge=0)] = 0
    """Cells at an edge of a tile in which the graphs' outputs are not those of the whole image. Tiles of images of any
    size overlap by twice as many and the fade, at least by a quarter and at most by half of a tile."""
    tiles: Tiles | None = None
    """What tiles change; null if no pixel by more than a gray level, or if it was not measured."""

    @model_validator(mode="after")
    def _maps_have_a_stride(self) -> "Latent":
        if (len(self.shape) == 3) != (self.stride is not None):
            raise ValueError("a latent has a stride if it has three axes, and only then")
        if len(self.shape) == 2 or self.shape[0] is None or (None in self.shape and self.shape[1:] != (None, None)):
            raise ValueError("a latent is [d], [c, h, w] or [c, null, null]")
        return self

    @model_validator(mode="after")
    def _factors_fit_the_channels(self) -> "Latent":
        for factor in (self.scaling_factor, self.shift_factor):
            if isinstance(factor, tuple) and len(factor) != self.shape[0]:
                raise ValueError("scaling_factor and shift_factor are one number, or one per channel of the latent")
        return self


class Tensor(_Part):
    """One input or output of a graph; a null size is variable."""

    dtype: Literal["uint8", "float32"]
    """Data type of the elements."""
    shape: tuple[int | None, ...]
    """Shape including the batch, which comes first and is null."""


class File(_Part):
    """A file of the bundle and the sha256 of its bytes."""

    file: FileName
    """Name of the file, in the manifest's directory."""
    sha256: Sha256
    """sha256 of the file, in lower-case hexadecimal digits."""


class GraphFile(File):
    """An ONNX file, its inputs and its outputs."""

    inputs: dict[str, Tensor]
    """Inputs by name: `image` for the encoder, `latent` for the decoder."""
    outputs: dict[str, Tensor]
    """Outputs by name. Encoder: `mean` and, with a posterior, `log_std`. Decoder: `image`, likelihood parameters."""


class GraphFiles(_Part):
    """The two graphs: `image` -> `mean`, `log_std`, and `latent` -> `image` with the likelihood's parameters."""

    encoder: GraphFile
    """The graph from images to posteriors."""
    decoder: GraphFile
    """The graph from latents to images."""

    @model_validator(mode="after")
    def _tensors_of_the_contract(self) -> "GraphFiles":
        if set(self.encoder.inputs) != {"image"} or not {"mean"} <= set(self.encoder.outputs) <= {"mean", "log_std"}:
            raise ValueError("the encoder must map `image` to `mean` and, if it has a posterior, `log_std`")
        if set(self.decoder.inputs) != {"latent"} or "image" not in self.decoder.outputs:
            raise ValueError("the decoder must map `latent` to `image` and the likelihood's parameters")
        return self


class Array(File):
    """An npy file of the bundle."""

    dtype: Literal["float32", "int64", "uint8"]
    """Data type of the elements in the file."""
    shape: tuple[int, ...]
    """Shape in the file."""


class Reduced(_Part):
    """Graphs with smaller weights, and what the reduction changes.

    Both the reduced and the original graphs were run on the same held-out images, with the same draws."""

    precision: Literal["fp16-stored", "fp16", "int8"]
    """Precision of the weights: `fp16-stored` is float16 in the file and float32 in memory, `fp16` multiplies as
    float16, `int8` as 8-bit integers."""
    encoder: File
    """The reduced encoder, with the inputs and outputs of `graphs.encoder`."""
    decoder: File
    """The reduced decoder, with the inputs and outputs of `graphs.decoder`."""
    source: Positive
    """Version of this model whose graphs were reduced."""
    measured_on: ExecutionProvider
    """Execution provider of the measurement."""
    split: str
    """Source of the images: a split of the data set, or the name of a folder or file."""
    images: Positive
    """Number of images."""
    seed: int
    """Seed of the draws and of the binarization."""
    measure: Literal["negative_elbo", "psnr"]
    """Quantity that was compared, as a mean over images: the negative ELBO in nats, or the PSNR in dB of the posterior
    mean's reconstruction if there is no likelihood."""
    change: float
    """Change of `measure` by the reduction."""
    standard_error: float
    """Standard error of `change`, over the images."""
    bound: float
    """Maximum that was accepted for the absolute change plus twice its standard error."""
    mean_change: float
    """Largest change of a posterior mean, in standard deviations of that posterior, or of all encodings if there is no
    posterior."""
    pixel_change: int
    """Largest change of a pixel of a reconstruction, in gray levels."""
    size: Positive
    """Bytes of both reduced graphs."""
    size_before: Positive
    """Bytes of both original graphs."""
    speed_alone: float | None = None
    """Speed of a single row, relative to the original graphs; null if they ran on another provider."""
    speed_batched: float | None = None
    """Speed of many rows at a time, relative to the original graphs."""


class Training(_Part):
    """The training that produced the weights."""

    dataset: str
    """Name of the data set."""
    binarization: Literal["dynamic", "static", "none"]
    """How gray pixels became binary: by a new draw in each epoch (`dynamic`), by one draw (`static`), or not at all."""
    recipe: str
    """Path of the training recipe, in this repository or in the bundle."""
    epochs: int
    """Passes over the training images."""
    seed: int
    """Seed of the training's random numbers."""
    commit: str | None = None
    """Commit of this repository at the time of the training."""


class ModelKey(NamedTuple):
    """One version of a model."""

    name: str
    version: int


class Manifest(_Part):
    """`manifest.json`, format 1."""

    format: Literal[1] = 1
    """Version of the manifest's format."""
    name: Name
    """Name of the model in requests, and of the directory above the bundle."""
    version: Positive
    """Version, and name of the bundle's directory. Requests that name no version get the highest."""
    description: str
    """One sentence about the model."""
    license: str
    """License of the weights, an SPDX identifier."""
    created: str
    """Date and time of the export, ISO 8601, in UTC."""
    image: Image
    """The images."""
    latent: Latent
    """The latents."""
    likelihood: Literal["bernoulli", "gaussian", "discretized_logistic"]
    """The likelihood p(x|z), whose parameters are outputs of the decoder."""
    graphs: GraphFiles
    """The ONNX graphs."""
    reduced: dict[str, Reduced] = {}
    """Graphs with smaller weights, by the execution provider that runs them instead of `graphs`: `cpu` or `cuda`. The
    key `any` says that `graphs` are reduced themselves."""
    classes: tuple[str, ...] = ()
    """Names of the labels 0, 1, ..., if they have names."""
    arrays: dict[str, Array] = {}
    """Arrays that the server uses besides the graphs, by name. Unknown names are verified and ignored."""
    training: Training
    """The training of the weights."""
    metrics: dict[str, Any] = {}
    """Metrics of these graphs on held-out images, in nats per image. The server reads only `kl_per_dimension`."""

    @model_validator(mode="after")
    def _reduced_for_providers(self) -> "Manifest":
        taken, reduced = self.graphs, self.reduced.get("any")
        if not self.reduced.keys() <= set(get_args(Provider)):
            raise ValueError(f"graphs are reduced for one of {', '.join(get_args(Provider))}")
        if reduced and (reduced.encoder.sha256, reduced.decoder.sha256) != (taken.encoder.sha256, taken.decoder.sha256):
            raise ValueError("the graphs reduced for any provider must be `graphs` themselves")
        return self

    @property
    def key(self) -> ModelKey:
        """Name and version."""
        return ModelKey(self.name, self.version)

    @property
    def stochastic(self) -> bool:
        """Whether the encoder has a posterior; a plain autoencoder has none."""
        return "log_std" in self.graphs.encoder.outputs

    @property
    def digest(self) -> str:
        """sha256 of the manifest. It covers every file, because the manifest has the sha256 of each."""
        return hashlib.sha256(self.model_dump_json().encode()).hexdigest()

    @property
    def files(self) -> dict[str, str]:
        """Every named file and its sha256."""
        pairs: list[GraphFiles | Reduced] = [self.graphs, *self.reduced.values()]
        graphs = [file for pair in pairs for file in (pair.encoder, pair.decoder)]
        return {part.file: part.sha256 for part in (*graphs, *self.arrays.values())}

    def graphs_of(self, provider: Provider) -> tuple[File, File]:
        """Encoder and decoder that an execution provider runs."""
        taken = self.reduced.get(provider, self.graphs)
        return taken.encoder, taken.decoder
