"""Diagonal Gaussians in numpy: posteriors, seeded draws, KL, interpolation. float32 in, float32 out.

Every draw is a function of (seed, row) alone: the i-th row of a request does not depend on the other rows of its batch,
on the worker process, or on the number of rows requested.
"""

import threading
from collections.abc import Mapping
from dataclasses import dataclass, fields
from itertools import pairwise
from statistics import NormalDist
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from app.maths.arrays import Doubles
from app.maths.arrays import Floats as Floats

_NORMAL = NormalDist()
_quantile = np.frompyfunc(_NORMAL.inv_cdf, 1, 1)


@dataclass(frozen=True)
class Posterior:
    """q(z|x): `mean` and `log_std` `[N, *latent]`; `log_std` is None if the encoder is deterministic."""

    mean: Floats
    log_std: Floats | None

    def draw(self, seed: int) -> Floats:
        """One reparameterized draw per row, z = mean + exp(log_std) * eps, `[N, *latent]`.

        Kingma & Welling 2014 (arXiv:1312.6114), section 2.4.

        Raises:
            ValueError: the encoder is deterministic.
        """
        return self.draws(seed, range(len(self.mean)), 1)[1][:, 0]

    def draws(self, seed: int, rows: range, k: int) -> tuple[Floats, Floats]:
        """`k` draws for each of `rows`: eps, and z = mean + exp(log_std) * eps, both `[len(rows), k, *latent]`.

        The first draw of a row is that of `draw`.

        Raises:
            ValueError: the encoder is deterministic.
        """
        if self.log_std is None:
            raise ValueError("a deterministic encoder has no posterior to draw from")
        eps = normal_draws(seed, rows, k, self.mean.shape[1:])
        selected = slice(rows.start, rows.stop)
        return eps, np.asarray(self.mean[selected, None] + np.exp(self.log_std[selected, None]) * eps, np.float32)

    def kl(self) -> Doubles:
        """KL(q(z|x) || N(0, I)) of every latent dimension, in nats, `[N, *latent]`; never negative.

        0.5 * (mean^2 + exp(2 log_std) - 2 log_std - 1): Kingma & Welling 2014 (arXiv:1312.6114), appendix B. Sum over
        the latent axes for an image's KL.
        """
        if self.log_std is None:
            raise ValueError("a deterministic encoder has no posterior")
        mean, log_std = self.mean.astype(np.float64), self.log_std.astype(np.float64)
        return 0.5 * (mean**2 + np.expm1(2 * log_std) - 2 * log_std)


def generator(seed: int, row: int, stream: int = 0) -> np.random.Generator:
    """The generator of one row of a request, keyed by seed and row; streams do not overlap.

    It is counter-based: Philox, Salmon et al. 2011, "Parallel random numbers: as easy as 1, 2, 3". Each call resets and
    returns the thread's only generator, so draw everything before the next call. A new generator would first read
    entropy from the system, which takes five times as long as the draw itself.
    """
    philox, state = _thread_philox()
    state["state"]["key"][:] = seed, row
    state["state"]["counter"][3] = stream
    philox.bit_generator.state = state
    return philox


_local = threading.local()


def _thread_philox() -> tuple[np.random.Generator, dict[str, Any]]:
    """This thread's generator, and the state of a fresh one."""
    if not hasattr(_local, "philox"):
        philox = np.random.Generator(np.random.Philox(key=0))
        _local.philox = philox, dict(philox.bit_generator.state)
    philox, state = _local.philox
    return philox, state


def standard_normal(seed: int, rows: int, shape: tuple[int, ...]) -> Floats:
    """Draws from N(0, I), `[rows, *shape]`."""
    return normal_draws(seed, range(rows), 1, shape)[:, 0]


def normal_draws(seed: int, rows: range, k: int, shape: tuple[int, ...]) -> Floats:
    """`k` draws from N(0, I) for each of `rows`, `[len(rows), k, *shape]`; the first is that of `standard_normal`."""
    draws = np.empty((len(rows), k, *shape), np.float32)
    for index, row in enumerate(rows):
        generator(seed, row).standard_normal(dtype=np.float32, out=draws[index])
    return draws


def log_ratio(eps: Floats, latents: Floats, log_std: Floats) -> Doubles:
    """log p(z) - log q(z|x) `[N, k]` of draws z = mean + exp(log_std) * eps, eps and z `[N, k, d]`, log_std `[N, d]`.

    Both normalizing constants are the same, and cancel.
    """
    ratio = 0.5 * (np.square(eps) - np.square(latents)) + log_std[:, None]
    return np.asarray(ratio.sum(axis=2, dtype=np.float64))


def truncated_normal(seed: int, rows: int, shape: tuple[int, ...], truncation: float) -> Floats:
    """Draws from N(0, I), each component truncated to [-truncation, truncation], `[rows, *shape]`, by inverse CDF."""
    low = _NORMAL.cdf(-truncation)
    uniform = np.stack([generator(seed, row).random(shape) for row in range(rows)])
    draws: Doubles = normal_quantile(low + (1 - 2 * low) * uniform)
    return np.clip(draws, -truncation, truncation).astype(np.float32)


def sample_prior(
    seed: int, rows: int, shape: tuple[int, ...], *, temperature: float = 1.0, truncation: float | None = None
) -> Floats:
    """Prior draws z = temperature * eps, `[rows, *shape]`; `truncation` bounds |eps|, at least 0.1."""
    draws = (
        standard_normal(seed, rows, shape) if truncation is None else truncated_normal(seed, rows, shape, truncation)
    )
    return draws if temperature == 1 else np.float32(temperature) * draws


@dataclass(frozen=True)
class Mixture:
    """A Gaussian mixture over vector latents: the aggregated posterior, fitted at export."""

    weights: Floats
    """`[K]`"""
    means: Floats
    """`[K, d]`"""
    cholesky: Floats
    """`[K, d, d]`: lower Cholesky factors of the covariances."""
    labels: NDArray[np.int64]
    """`[K]`: the class that a component belongs to, -1 for none."""

    @classmethod
    def of(cls, arrays: Mapping[str, NDArray[Any]]) -> "Mixture | None":
        """The mixture in a bundle's arrays `aggregate_weights` and so on; None if one of them is missing."""
        names = [f"aggregate_{field.name}" for field in fields(cls)]
        return cls(*(arrays[name] for name in names)) if all(name in arrays for name in names) else None

    def sample(
        self,
        seed: int,
        rows: int,
        *,
        temperature: float = 1.0,
        truncation: float | None = None,
        label: int | None = None,
    ) -> Floats:
        """Draws `[rows, d]`; `temperature` scales within a component, `label` selects the components of one class.

        Raises:
            ValueError: no component has this label.
        """
        chosen = np.flatnonzero(np.ones_like(self.labels) if label is None else self.labels == label)
        if not len(chosen):
            raise ValueError("no component has this label")
        eps = sample_prior(seed, rows, self.means.shape[1:], temperature=temperature, truncation=truncation)
        edges = np.cumsum(self.weights[chosen], dtype=np.float64)
        uniform = np.array([generator(seed, row, stream=1).random() for row in range(rows)])
        picked = chosen[np.minimum(np.searchsorted(edges, uniform * edges[-1], side="right"), len(chosen) - 1)]
        draws: Floats = self.means[picked] + np.einsum("nij,nj->ni", self.cholesky[picked], eps)
        return draws


@dataclass(frozen=True)
class Quantiles:
    """The quantiles of a distribution of numbers: `values` `[Q]` at `percentiles` `[Q]`, both ascending."""

    percentiles: Doubles
    values: Doubles

    @classmethod
    def of(cls, arrays: Mapping[str, NDArray[Any]], name: str) -> "Quantiles | None":
        """The quantiles in a bundle's array `name`; None if the bundle has no such array."""
        if not {"percentiles", name} <= set(arrays):
            return None
        return cls(arrays["percentiles"].astype(np.float64), arrays[name].astype(np.float64))

    def percentile(self, values: NDArray[Any]) -> Doubles:
        """Percentage of the distribution below each of `values`, 0 to 100, interpolated."""
        return np.asarray(np.interp(values, self.values, self.percentiles))


def squared_norm(latents: Floats) -> Doubles:
    """|z|^2 `[N]` of latents `[N, *latent]`."""
    flat = latents.reshape(len(latents), -1).astype(np.float64)  # in float32, the square of a large latent overflows
    return np.asarray(np.vecdot(flat, flat))


def normal_quantile(probabilities: Doubles) -> Doubles:
    """Quantiles of N(0, 1) at probabilities strictly between 0 and 1, by Wichura's algorithm AS 241 (1988)."""
    return np.asarray(_quantile(probabilities), np.float64)


def manifold_grid(n: int) -> Floats:
    """The latent plane, evenly spaced under the prior: z = Phi^-1(u) for u on an even n x n grid of [0.05, 0.95].

    Kingma & Welling 2014 (arXiv:1312.6114), figure 4. Returns `[n * n, 2]`, row by row from the top, the largest second
    coordinate first. n = 1 is the origin.
    """
    line = normal_quantile(np.linspace(0.05, 0.95, n) if n > 1 else np.array([0.5])).astype(np.float32)
    first, second = np.meshgrid(line, line[::-1])
    return np.stack([first.ravel(), second.ravel()], axis=1)


def interpolate(points: Floats, steps: int, method: Literal["lerp", "slerp"]) -> Floats:
    """A path `[(P - 1) * (steps - 1) + 1, *latent]` through `points` `[P, *latent]`.

    There are `steps` latents from each point to the next, both included.

    An arc between huge, almost opposite latents may leave the range of float32; those values are infinite.
    """
    fractions = np.linspace(0, 1, steps)
    between = {"lerp": lerp, "slerp": slerp}[method]
    legs = [between(a, b, fractions) for a, b in pairwise(points)]
    with np.errstate(over="ignore"):
        return np.concatenate([leg[:-1] for leg in legs] + [points[-1:]]).astype(np.float32)


def lerp(a: Floats, b: Floats, fractions: Doubles) -> Doubles:
    """The straight line from a to b, `[len(fractions), *latent]`."""
    t = fractions.reshape(-1, *[1] * a.ndim)
    return np.asarray((1 - t) * a + t * b)


def slerp(a: Floats, b: Floats, fractions: Doubles) -> Doubles:
    """The great arc from a to b on flattened vectors, `[len(fractions), *latent]`.

    Shoemake 1985, "Animating rotation with quaternion curves". Vectors of different lengths are not normalized.

    If the sine of the angle is under 1e-6 (parallel, opposite or zero vectors), the result is that of `lerp`.
    """
    flat_a, flat_b = a.ravel().astype(np.float64), b.ravel().astype(np.float64)
    lengths = np.linalg.norm(flat_a) * np.linalg.norm(flat_b)
    cosine = np.clip(flat_a @ flat_b / lengths, -1, 1) if lengths > 0 else 1.0
    angle = np.arccos(cosine)
    if np.sin(angle) < 1e-6:
        return lerp(a, b, fractions)
    t = fractions.reshape(-1, *[1] * a.ndim)
    return np.asarray((np.sin((1 - t) * angle) * a + np.sin(t * angle) * b) / np.sin(angle))
