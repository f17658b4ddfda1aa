"""The replicas of one model: one process each, and how the ingress calls them."""

from contextlib import AbstractAsyncContextManager, AsyncExitStack
from dataclasses import replace
from typing import Any

import ray
from ray import serve
from ray.exceptions import RayError, RayTaskError
from ray.serve.exceptions import BackPressureError, RayServeException
from ray.serve.handle import DeploymentHandle

from app.cluster.messages import Answer, Request, answered
from app.errors import Overloaded, VaeError
from app.main import create_app
from app.settings import read_settings


class Replica:
    """One process of a deployment: the whole application, on one model.

    What it serves changes with the deployment alone, so that its replicas agree.
    """

    async def __init__(self, settings: dict[str, Any]) -> None:  # type: ignore[misc]  # Ray awaits it
        """`settings` are fields of `Settings`; the others come from the environment.

        Raises:
            StartupError: a setting or a bundle is wrong; it stands in the deployment's status.
        """
        slots = int(ray.get_runtime_context().get_assigned_resources().get("CPU", 1))
        self._app = create_app(read_settings(**{"slots": max(1, slots)} | settings), managed=False)
        self._name = serve.get_replica_context().replica_tag
        self._lifespan = AsyncExitStack()
        started: AbstractAsyncContextManager[Any] = self._app.router.lifespan_context(self._app)
        self._state: dict[str, Any] = await self._lifespan.enter_async_context(started)

    async def answer(self, request: Request) -> Answer:
        """The application's answer."""
        return replace(await answered(self._app, request, self._state), replica=self._name)

    async def __del__(self) -> None:
        """Ray calls it when every request has ended."""
        await self._lifespan.aclose()


class Replicas:
    """All replicas of one model, wherever they are."""

    def __init__(self, handle: DeploymentHandle) -> None:
        self._handle = handle

    async def ask(self, request: Request) -> Answer:
        """The answer of one of them, the least busy of two.

        Raises:
            Overloaded: too many requests wait, or the replica died while it worked on this one.
        """
        try:
            answer: Answer = await self._handle.answer.remote(request)
        except BackPressureError:
            raise Overloaded("too many requests wait for this model") from None
        except RayTaskError as error:
            raise VaeError("a replica failed") from error
        except (RayError, RayServeException) as error:
            raise Overloaded("the process that worked on this request is gone; send it again") from error
        return answer

    async def ask_all(self, request: Request, seconds: float) -> list[Answer]:
        """The answers of all of them, but for those that are just dying; no bound refuses these.

        Raises:
            Overloaded: one of them is there and does not answer in time.
        """
        answers = self._handle.broadcast("answer", request)
        try:
            found = await answers.results_async(timeout_s=seconds, return_exceptions=True)
        except TimeoutError:
            raise Overloaded("not every replica answers") from None
        return [answer for answer in found if isinstance(answer, Answer)]
