"""What schemathesis is told of bodies that are bytes: npy of a few shapes and types, some of which a model takes, and
anything for the rest."""

from typing import Any

import schemathesis
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from safetensors.numpy import save
from schemathesis.core.failures import Failure, ServerError
from schemathesis.openapi.checks import RejectedPositiveData

from tests.absurd import is_not_finite
from tests.conftest import npy

VECTORS = [(1, 28, 28), (2, 28, 28, 1), (1, 32), (3, 2), (0, 28, 28), (1, 28, 28, 3), (5,), ()]
MAPS = [(1, 16, 24, 3), (2, 4, 2, 3), (1, 4, 0, 2), (1, 16, 23, 3)]
SHAPES = st.sampled_from(VECTORS + MAPS)
DTYPES = st.sampled_from(["u1", "<f4", ">f8", "<f2", "<i8", "?"])
ARRAYS = hnp.arrays(DTYPES, SHAPES, elements=st.integers(0, 1), fill=st.just(0))

BYTES = {
    "application/x-npy": ARRAYS.map(npy),
    "application/x-safetensors": ARRAYS.map(lambda array: save({"images": array, "latents": array})),
    "tensor/binary": st.binary(max_size=4096),
}

for media_type, bodies in BYTES.items():
    schemathesis.openapi.media_type(media_type, bodies)


@schemathesis.hook
def filter_failure(context: Any, failure: Failure, case: Any, response: Any) -> bool:
    """Whether a failure counts: an absurd latent that overflows in the model may fail, and nothing else."""
    may_fail = isinstance(failure, ServerError | RejectedPositiveData)
    return not (may_fail and response.status_code == 500 and is_not_finite(response.content))
