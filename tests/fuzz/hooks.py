"""What schemathesis is told of npy bodies: arrays of a few shapes and types, some of which a model takes."""

import schemathesis
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from tests.conftest import npy

SHAPES = st.sampled_from([(1, 28, 28), (2, 28, 28, 1), (1, 32), (3, 2), (0, 28, 28), (1, 28, 28, 3), (5,), ()])
DTYPES = st.sampled_from(["u1", "<f4", ">f8", "<f2", "<i8", "?"])
ARRAYS = hnp.arrays(DTYPES, SHAPES, elements=st.integers(0, 1), fill=st.just(0))

schemathesis.openapi.media_type("application/x-npy", ARRAYS.map(npy))
