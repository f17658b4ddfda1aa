"""What a legal latent near the largest float32 may get: it overflows in the model."""

import json

from app.errors import NotFinite


def is_not_finite(content: str | bytes) -> bool:
    """Whether an answer says that an output of the model is not finite, and nothing else."""
    try:
        problem = json.loads(content)
    except ValueError:
        return False
    return (problem.get("type"), problem.get("detail")) == (f"urn:vaeserve:problem:{NotFinite.slug}", NotFinite.failure)
