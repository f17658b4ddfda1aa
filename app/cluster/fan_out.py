"""Requests about all models, which the ingress sends to every deployment: lists, health, metrics."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Protocol

from prometheus_client import Metric, generate_latest
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.registry import Collector
from pydantic import BaseModel

from app.api.service.models import ServedModel, ServedModels
from app.api.v2.index import Index
from app.api.v2.statistics import Statistics
from app.cluster.messages import ReplicaRequest, ReplicaResponse
from app.errors import Overloaded

_TIMEOUT_SECONDS = 5.0
"""Maximum seconds to wait for all replicas."""


class ModelReplicas(Protocol):
    """The replicas of one model."""

    async def ask(self, request: ReplicaRequest) -> ReplicaResponse:
        """Return the response of one replica."""

    async def ask_all(self, request: ReplicaRequest, seconds: float) -> list[ReplicaResponse]:
        """Return the responses of all replicas."""


Models = Mapping[str, ModelReplicas]
"""The replicas of each model by its name, in ascending order."""


async def list_models(models: Models, default: str, request: ReplicaRequest) -> ReplicaResponse:
    """`GET /models`."""

    def merge(bodies: Sequence[bytes]) -> ServedModels:
        parts = [ServedModels.model_validate_json(body) for body in bodies]
        served = [_with_default(default, model) for part in parts for model in part.models]
        return ServedModels(default=default, queued_rows=sum(part.queued_rows for part in parts), models=served)

    return await _merge_responses(models, request, merge)


async def get_model(model: ModelReplicas, default: str, request: ReplicaRequest) -> ReplicaResponse:
    """`GET /models/{name}`."""
    response = await model.ask(request.as_get())
    if response.status != 200:
        return response
    served = _with_default(default, ServedModel.model_validate_json(response.body))
    return response.with_body(served.model_dump_json().encode())


async def repository_index(models: Models, _: str, request: ReplicaRequest) -> ReplicaResponse:
    """`POST /v2/repository/index`."""

    def merge(bodies: Sequence[bytes]) -> Index:
        return Index([entry for body in bodies for entry in Index.model_validate_json(body).root])

    return await _merge_responses(models, request, merge)


async def statistics(models: Models, _: str, request: ReplicaRequest) -> ReplicaResponse:
    """`GET /v2/models/stats`, from one replica of each model."""

    def merge(bodies: Sequence[bytes]) -> Statistics:
        parts = [Statistics.model_validate_json(body) for body in bodies]
        return Statistics(model_stats=[entry for part in parts for entry in part.model_stats])

    return await _merge_responses(models, request, merge)


async def ready(models: Models, _: str, request: ReplicaRequest) -> ReplicaResponse:
    """`GET /health/ready` and `/v2/health/ready`: 200 if every model has at least one ready replica."""
    by_model = await _ask_all_replicas(models, request)
    return _first([next((it for it in found if it.status == 200), _first(found)) for found in by_model])


async def metrics(models: Models, _: str, request: ReplicaRequest) -> ReplicaResponse:
    """`GET /metrics`: the series of each replica, with the labels `deployment` and `replica`.

    They are not added up: a sum falls when a replica ends, which Prometheus takes for a restart.
    """
    by_model = await _ask_all_replicas(models, request)
    responses = [response for found in by_model for response in found]
    if not responses or _first(responses).status != 200:
        return _first(responses)
    families = _Families()
    for name, found in zip(models, by_model, strict=True):
        for response in found:
            families.add(response.body.decode(), {"deployment": name, "replica": response.replica})
    return responses[0].with_body(generate_latest(families))


ROUTES: dict[tuple[str, str], Callable[[Models, str, ReplicaRequest], Awaitable[ReplicaResponse]]] = {
    ("GET", "/models"): list_models,
    ("GET", "/metrics"): metrics,
    ("GET", "/health/ready"): ready,
    ("GET", "/v2/health/ready"): ready,
    ("GET", "/v2/models/stats"): statistics,
    ("POST", "/v2/repository/index"): repository_index,
}
"""Handlers by method and path."""


class _Families(Collector):
    """Metric families of several processes; the text format requires all samples of a family together."""

    def __init__(self) -> None:
        self._families: dict[str, Metric] = {}

    def add(self, text: str, labels: dict[str, str]) -> None:
        """Add the metrics of one process, with `labels` on each sample."""
        for family in text_string_to_metric_families(text):
            samples = [sample._replace(labels={**labels, **sample.labels}) for sample in family.samples]
            family.samples = []
            self._families.setdefault(family.name, family).samples += samples

    def collect(self) -> list[Metric]:
        """Return all families."""
        return list(self._families.values())


def _with_default(default: str, model: ServedModel) -> ServedModel:
    """Correct `default`: each replica serves one model, and reports it as the default one."""
    return model.model_copy(update={"default": model.default and model.name == default})


async def _merge_responses(
    models: Models, request: ReplicaRequest, merge: Callable[[Sequence[bytes]], BaseModel]
) -> ReplicaResponse:
    """Ask one replica of each model and merge the bodies; if any of them refuses, return its refusal."""
    responses = await asyncio.gather(*(model.ask(request.as_get()) for model in models.values()))
    first = _first(responses)
    if first.status != 200:
        return first
    return first.with_body(merge([response.body for response in responses]).model_dump_json().encode())


async def _ask_all_replicas(models: Models, request: ReplicaRequest) -> list[list[ReplicaResponse]]:
    return await asyncio.gather(*(model.ask_all(request.as_get(), _TIMEOUT_SECONDS) for model in models.values()))


def _first(responses: Sequence[ReplicaResponse]) -> ReplicaResponse:
    """Return the first refusal or, without one, the first response.

    Raises:
        Overloaded: there is no response at all.
    """
    if not responses:
        raise Overloaded("no replica responded")
    return next((response for response in responses if response.status != 200), responses[0])
