"""What is answered for all models together: lists of them, their health, their metrics."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Protocol

from prometheus_client import CollectorRegistry, Metric, generate_latest
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.registry import Collector

from app.api.service.models import ServedModel, ServedModels
from app.api.v2.index import Index
from app.api.v2.statistics import Statistics
from app.cluster.messages import Answer, Request
from app.errors import Overloaded

_SECONDS = 5.0
"""Longest wait for all replicas, whose answers take none of them long."""


class Model(Protocol):
    """The replicas of one model."""

    async def ask(self, request: Request) -> Answer:
        """The answer of one."""

    async def ask_all(self, request: Request, seconds: float) -> list[Answer]:
        """The answers of all."""


Models = Mapping[str, Model]
"""By name, ascending."""


async def list_models(models: Models, default: str, request: Request) -> Answer:
    """`GET /models`."""

    def merged(bodies: Sequence[bytes]) -> ServedModels:
        parts = [ServedModels.model_validate_json(body) for body in bodies]
        served = [_told_of(default, model) for part in parts for model in part.models]
        return ServedModels(default=default, queued_rows=sum(part.queued_rows for part in parts), models=served)

    return await _merged(models, request, lambda bodies: merged(bodies).model_dump_json())


async def get_model(model: Model, default: str, request: Request) -> Answer:
    """`GET /models/{name}`; each replica takes its model for the default one."""
    answer = await model.ask(request.as_get())
    if answer.status != 200:
        return answer
    served = _told_of(default, ServedModel.model_validate_json(answer.body))
    return answer.with_body(served.model_dump_json().encode())


async def repository_index(models: Models, _: str, request: Request) -> Answer:
    """`POST /v2/repository/index`."""

    def merged(bodies: Sequence[bytes]) -> Index:
        return Index([entry for body in bodies for entry in Index.model_validate_json(body).root])

    return await _merged(models, request, lambda bodies: merged(bodies).model_dump_json())


async def statistics(models: Models, _: str, request: Request) -> Answer:
    """`GET /v2/models/stats`, of one replica of each model."""

    def merged(bodies: Sequence[bytes]) -> Statistics:
        parts = [Statistics.model_validate_json(body).model_stats for body in bodies]
        return Statistics(model_stats=[entry for part in parts for entry in part])

    return await _merged(models, request, lambda bodies: merged(bodies).model_dump_json())


async def ready(models: Models, _: str, request: Request) -> Answer:
    """`GET /health/ready` and `/v2/health/ready`: of every model a replica answers, however many requests wait."""
    found = await _of_all(models, request)
    return _first([next((it for it in of_model if it.status == 200), _first(of_model)) for of_model in found])


async def metrics(models: Models, _: str, request: Request) -> Answer:
    """`GET /metrics`: each replica's own series, told apart by the labels `deployment` and `replica`.

    They are not added up: a sum would fall when a replica goes, which looks as if all of them had been restarted.
    """
    found = await _of_all(models, request)
    answers = [answer for of_model in found for answer in of_model]
    if not answers or _first(answers).status != 200:
        return _first(answers)
    families = _Families()
    for name, of_model in zip(models, found, strict=True):
        for answer in of_model:
            families.add(answer.body.decode(), {"deployment": name, "replica": answer.replica})
    return answers[0].with_body(families.text())


TOGETHER: dict[tuple[str, str], Callable[[Models, str, Request], Awaitable[Answer]]] = {
    ("GET", "/models"): list_models,
    ("GET", "/metrics"): metrics,
    ("GET", "/health/ready"): ready,
    ("GET", "/v2/health/ready"): ready,
    ("GET", "/v2/models/stats"): statistics,
    ("POST", "/v2/repository/index"): repository_index,
}
"""By method and path."""


class _Families(Collector):
    """Metric families of many processes, those of one name together, as the text format wants them."""

    def __init__(self) -> None:
        self._families: dict[str, Metric] = {}

    def add(self, text: str, labels: dict[str, str]) -> None:
        """The metrics of one process, each with these labels besides."""
        for family in text_string_to_metric_families(text):
            samples = [sample._replace(labels={**labels, **sample.labels}) for sample in family.samples]
            family.samples = []
            self._families.setdefault(family.name, family).samples += samples

    def collect(self) -> list[Metric]:
        """All of them."""
        return list(self._families.values())

    def text(self) -> bytes:
        """All of them as Prometheus text."""
        registry = CollectorRegistry()
        registry.register(self)
        return generate_latest(registry)


def _told_of(default: str, model: ServedModel) -> ServedModel:
    return model.model_copy(update={"default": model.default and model.name == default})


async def _merged(models: Models, request: Request, merge: Callable[[Sequence[bytes]], str]) -> Answer:
    """One answer made of one replica's of each model; a refusal, if any of them refuses."""
    answers = await _of_each(models, request)
    first = _first(answers)
    return first if first.status != 200 else first.with_body(merge([it.body for it in answers]).encode())


async def _of_each(models: Models, request: Request) -> list[Answer]:
    return await asyncio.gather(*(model.ask(request.as_get()) for model in models.values()))


async def _of_all(models: Models, request: Request) -> list[list[Answer]]:
    return await asyncio.gather(*(model.ask_all(request.as_get(), _SECONDS) for model in models.values()))


def _first(answers: Sequence[Answer]) -> Answer:
    """The first refusal or, if there is none, the first answer.

    Raises:
        Overloaded: there is no answer at all.
    """
    if not answers:
        raise Overloaded("no replica answers")
    return next((answer for answer in answers if answer.status != 200), answers[0])
