"""The sizes of a model's images and latents: fixed, or any size that is a multiple of the model's stride."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

from app.bundle.manifest import MANIFEST, Manifest
from app.errors import BundleError, InvalidInput


@dataclass(frozen=True)
class Geometry:
    """The sizes of one model."""

    channels: int
    """Channels of an image."""
    size: tuple[int, int] | None
    """Height and width of an image in pixels; None if images may be of any size."""
    latent: tuple[int | None, ...]
    """Shape of one latent: `[d]`, `[c, h, w]` or, if images may be of any size, `[c, None, None]`."""
    stride: int
    """Image pixels per cell of a map, along each side; 1 for a vector."""

    @classmethod
    def of(cls, manifest: Manifest) -> "Geometry":
        """The geometry in a manifest.

        Raises:
            BundleError: its sizes contradict each other.
        """
        image, latent = manifest.image, manifest.latent
        height, width, stride = image.height, image.width, latent.stride or 1
        path = f"{manifest.name}/{manifest.version}/{MANIFEST}"
        if {height is None, width is None, None in latent.shape} not in ({True}, {False}):
            raise BundleError(
                f"{path} has sizes that do not go together: images and maps are both fixed, or neither is"
            )
        if height is None or width is None:
            return cls(image.channels, None, latent.shape, stride)
        if len(latent.shape) == 3 and latent.shape[1:] != (height / stride, width / stride):
            raise BundleError(f"{path} has sizes that do not go together: a map has the image's, divided by the stride")
        return cls(image.channels, (height, width), latent.shape, stride)

    @cached_property
    def image_shape(self) -> tuple[int, int, int]:
        """Height, width, channels.

        Raises:
            InvalidInput: images may be of any size.
        """
        if self.size is None:
            raise InvalidInput("this model takes images of any size, and this operation needs one")
        return (*self.size, self.channels)

    @cached_property
    def latent_shape(self) -> tuple[int, ...]:
        """Shape of one latent.

        Raises:
            InvalidInput: images may be of any size.
        """
        if self.size is None:
            raise InvalidInput("this model takes images of any size, and this operation needs one")
        return tuple(size for size in self.latent if size is not None)

    @property
    def is_vector(self) -> bool:
        """Whether a latent is a vector rather than a map."""
        return len(self.latent) == 1

    @property
    def latent_words(self) -> str:
        """The shape of a latent in error messages: `4, h, w`."""
        return ", ".join(str(size or letter) for size, letter in zip(self.latent, "chw", strict=False))

    def dimensions(self) -> int:
        """Dimensions of a vector latent.

        Raises:
            InvalidInput: latents are maps, whose single dimensions have no meaning.
        """
        if not self.is_vector:
            raise InvalidInput("this model's latents are maps, and this operation needs vectors", "/query/model")
        return self.latent_shape[0]

    def check_images(self, shape: Sequence[int], pointer: str = "", *, planes: bool = False) -> None:
        """Raise unless an array of images is `[N, H, W, C]`, or `[N, C, H, W]` if `planes`, of the model's size.

        Raises:
            InvalidInput: the shape is wrong; the message says which is right.
        """
        channels, height, width = (shape[1:] if planes else (shape[3], *shape[1:3])) if len(shape) == 4 else (0, 0, 0)
        if channels != self.channels or not self._takes(height, width):
            raise InvalidInput(f"images must be {self._image_words(planes)}", pointer)

    def check_latents(self, shape: Sequence[int], pointer: str = "") -> None:
        """Raise unless an array of latents is `[N, *latent]`.

        Raises:
            InvalidInput: the shape is wrong; the message says which is right.
        """
        if not self.is_latent(shape[1:]):
            raise InvalidInput(f"latents must be [N, {self.latent_words}]", pointer)

    def is_latent(self, shape: Sequence[int]) -> bool:
        """Whether a latent of the model may have this shape."""
        if self.size is not None:
            return tuple(shape) == self.latent_shape
        return len(shape) == 3 and shape[0] == self.latent[0] and min(shape) > 0

    def shape_asked(self, asked: Sequence[int] | None, pointer: str = "/latent_shape") -> tuple[int, ...]:
        """Shape of the latents in a request, which may name it (`asked`).

        An empty list counts as absent: some generated clients send it for a list that is not set.

        Raises:
            InvalidInput: not a shape of the model's latents; or missing, for a model of images of any size.
        """
        if not asked and self.size is not None:
            return self.latent_shape
        if not asked:
            raise InvalidInput(f"this model's latents are [{self.latent_words}]: give latent_shape", pointer)
        if not self.is_latent(asked):
            raise InvalidInput(f"this model's latents are [{self.latent_words}]", pointer)
        return tuple(asked)

    def latent_of(self, height: int, width: int) -> tuple[int, ...]:
        """Shape of the latent of an image of `height` x `width` pixels, a size that the model takes."""
        if self.size is not None:
            return self.latent_shape
        assert self.latent[0] is not None
        return self.latent[0], height // self.stride, width // self.stride

    def image_of(self, latent: Sequence[int]) -> tuple[int, int]:
        """Height and width, in pixels, of the image that a latent of this shape decodes to."""
        return (latent[1] * self.stride, latent[2] * self.stride) if self.size is None else self.size

    def size_asked(self, height: int | None, width: int | None) -> tuple[int, int]:
        """Height and width, in pixels, of the images that a query asks to generate.

        Raises:
            InvalidInput: not the model's size; or, for a model of any size, missing or not a multiple of its stride.
        """
        if self.size is not None:
            for name, asked, own in zip(("height", "width"), (height, width), self.size, strict=True):
                if asked not in (None, own):
                    raise InvalidInput(f"this model's images are {self.size[0]} x {self.size[1]}", f"/query/{name}")
            return self.size
        for name, asked in (("height", height), ("width", width)):
            if asked is None or asked % self.stride:
                words = f"this model makes images of any size: give its {name}, a multiple of {self.stride}"
                raise InvalidInput(words, f"/query/{name}")
        assert height is not None
        assert width is not None
        return height, width

    def _takes(self, height: int, width: int) -> bool:
        if self.size is not None:
            return (height, width) == self.size
        return height > 0 and width > 0 and not height % self.stride and not width % self.stride

    def _image_words(self, planes: bool) -> str:
        height, width = self.size or ("H", "W")
        if planes:
            words = f"[N, {self.channels}, {height}, {width}]"
        else:
            gray = f"[N, {height}, {width}] or " if self.channels == 1 else ""
            words = f"{gray}[N, {height}, {width}, {self.channels}]"
        return words if self.size is not None else f"{words}, H and W multiples of {self.stride}"
