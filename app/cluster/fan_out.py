"""Requests about all models, which the ingress sends to every deployment: lists, health, metrics."""

import asyncio
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

from prometheus_client import Metric, generate_latest
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.registry import Collector
from pydantic import BaseModel

from app.api.service.models import ServedModel, ServedModels
from app.api.v2.index import RepositoryIndex
from app.api.v2.statistics import Statistics
from app.cluster.messages import ReplicaRequest, ReplicaResponse
from app.errors import Overloaded

if TYPE_CHECKING:
    from app.cluster.replicas import Replicas

Models = Mapping[str, "Replicas"]
"""The replicas of each model by its name, in ascending order."""
Merge = Callable[[Sequence[bytes], str], BaseModel]
"""Merges the bodies of one replica of each model into one; also gets the name of the default model."""


def list_models(bodies: Sequence[bytes], default: str) -> ServedModels:
    """`GET /models`."""
    parts = [ServedModels.model_validate_json(body) for body in bodies]
    served = [_with_default(default, model) for part in parts for model in part.models]
    return ServedModels(default=default, queued_rows=sum(part.queued_rows for part in parts), models=served)


def get_model(bodies: Sequence[bytes], default: str) -> ServedModel:
    """`GET /models/{name}`, of the one replica that has the model."""
    return _with_default(default, ServedModel.model_validate_json(bodies[0]))


def repository_index(bodies: Sequence[bytes], _: str) -> RepositoryIndex:
    """`POST /v2/repository/index`."""
    return RepositoryIndex([entry for body in bodies for entry in RepositoryIndex.model_validate_json(body).root])


def statistics(bodies: Sequence[bytes], _: str) -> Statistics:
    """`GET /v2/models/stats`."""
    return Statistics(model_stats=[it for body in bodies for it in Statistics.model_validate_json(body).model_stats])


async def ready(models: Models, request: ReplicaRequest) -> ReplicaResponse:
    """`GET /health/ready` and `/v2/health/ready`: 200 if every model has at least one ready replica."""
    by_model = await _ask_all_replicas(models, request)
    return _first([next((it for it in found if it.status == 200), _first(found)) for found in by_model])


async def metrics(models: Models, request: ReplicaRequest) -> ReplicaResponse:
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


MERGED: dict[tuple[str, str], Merge] = {
    ("GET", "/models"): list_models,
    ("GET", "/v2/models/stats"): statistics,
    ("POST", "/v2/repository/index"): repository_index,
}
"""By method and path, how the bodies of one replica of each model are merged."""
OF_ALL_REPLICAS = {"/metrics": metrics, "/health/ready": ready, "/v2/health/ready": ready}
"""Handlers of GET requests that every replica of each model answers."""


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


async def merge_responses(
    merge: Merge, models: Iterable["Replicas"], default: str, request: ReplicaRequest
) -> ReplicaResponse:
    """Ask one replica of each of these models and merge the bodies; if any of them refuses, return its refusal."""
    responses = await asyncio.gather(*(model.ask(request.as_get()) for model in models))
    first = _first(responses)
    if first.status != 200:
        return first
    return first.with_body(merge([response.body for response in responses], default).model_dump_json().encode())


async def _ask_all_replicas(models: Models, request: ReplicaRequest) -> list[list[ReplicaResponse]]:
    return await asyncio.gather(*(model.ask_all(request.as_get()) for model in models.values()))


def _first(responses: Sequence[ReplicaResponse]) -> ReplicaResponse:
    """Return the first refusal or, without one, the first response.

    Raises:
        Overloaded: there is no response at all.
    """
    if not responses:
        raise Overloaded("no replica responded")
    return next((response for response in responses if response.status != 200), responses[0])
