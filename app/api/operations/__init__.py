"""The operations on a model, one module each. To add one: write its record in a module, and add a row below."""

from fastapi import APIRouter

from app.api.operations import (
    combine,
    decode,
    encode,
    interpolate,
    manifold,
    posteriors,
    reconstruct,
    remote,
    sample,
    score,
    traverse,
    vary,
)
from app.api.routing.operation import OperationRoute

OPERATIONS = (
    *encode.OPERATIONS,
    *decode.OPERATIONS,
    *sample.OPERATIONS,
    *interpolate.OPERATIONS,
    *reconstruct.OPERATIONS,
    *score.OPERATIONS,
    *vary.OPERATIONS,
    *combine.OPERATIONS,
    *traverse.OPERATIONS,
    *manifold.OPERATIONS,
    *posteriors.OPERATIONS,
    *remote.OPERATIONS,
)
"""Every operation on a model, in the order of the OpenAPI document."""

router = APIRouter()
router.routes += map(OperationRoute, OPERATIONS)
