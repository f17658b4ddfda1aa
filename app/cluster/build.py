"""Build the Ray Serve application from the arguments in its config file."""

from pathlib import Path
from typing import Any

from pydantic import BaseModel, Field
from ray import serve
from ray.serve import Application
from starlette.types import ASGIApp

from app.bundle.directory import find_bundles
from app.cluster.ingress import ingress
from app.cluster.replicas import Replica, Replicas
from app.errors import StartupError
from app.settings import read_settings

INGRESS = "Ingress"
"""The name of the ingress's deployment; no model can have it, because model names are in lower case."""
_MODEL_OPTIONS: dict[str, Any] = {
    "max_ongoing_requests": 64,
    "max_queued_requests": 256,
    "autoscaling_config": {"min_replicas": 1, "max_replicas": 4, "target_ongoing_requests": 16},
    "graceful_shutdown_timeout_s": 40,
}
"""Ray's options of a model's deployment. A replica batches its requests, so it takes many at once."""
_INGRESS_OPTIONS: dict[str, Any] = {
    "max_ongoing_requests": 4096,  # the models' own limits are lower, and refuse with a problem document
    "autoscaling_config": {"min_replicas": 1, "max_replicas": 4, "target_ongoing_requests": 64},
    "ray_actor_options": {"num_cpus": 0.25},
    "graceful_shutdown_timeout_s": 40,
}


class Arguments(BaseModel, extra="forbid"):
    """`args` of the application in the config file; Ray's own options of each model are under `deployments`."""

    models_dir: Path = Field(Path("models"), description="Directory of bundles, at the same path on every node.")
    default_model: str = Field("mnist", description="Model for requests that name none.")
    models: list[str] = Field([], description="Names of the models to serve; empty serves all of them.")
    settings: dict[str, Any] = Field(
        {}, description="Settings of every replica: `VAE_*` variables in lower case, without VAE_."
    )
    settings_of: dict[str, dict[str, Any]] = Field({}, description="Settings of one model's replicas, by its name.")
    request_seconds: float = Field(
        60, gt=0, description="Maximum seconds from a request to its complete response; then 504."
    )


def build(arguments: Arguments) -> Application:
    """Return the application: an ingress, and for each model a deployment with the model's name.

    Raises:
        StartupError: the arguments contradict each other or the models directory.
    """
    models_dir = arguments.models_dir.absolute()
    held = {key.name for key in find_bundles(models_dir)}
    names = sorted(held & set(arguments.models or held))
    for name in (arguments.default_model, *arguments.models, *arguments.settings_of):
        if name not in names:
            raise StartupError(f"{name} is not among the models: {', '.join(names) or 'there are none'}")
    replicas = [_model(name, arguments, models_dir) for name in names]
    limits = read_settings(**arguments.settings)

    def make_ingress() -> ASGIApp:  # called in the process of the ingress
        handles = {name: Replicas(serve.get_deployment_handle(name)) for name in names}
        return ingress(handles, arguments.default_model, seconds=arguments.request_seconds, limits=limits)

    return serve.deployment(serve.ingress(make_ingress)(), name=INGRESS, **_INGRESS_OPTIONS).bind(*replicas)


def _model(name: str, arguments: Arguments, models_dir: Path) -> Application:
    """Return the deployment of one model."""
    own = {"models_dir": models_dir, "models": name, "default_model": name, "workers": 1}
    settings = arguments.settings | arguments.settings_of.get(name, {}) | own
    read_settings(**settings)  # raises now, rather than in every replica
    return serve.deployment(Replica, name=name, **_MODEL_OPTIONS).bind(settings)
