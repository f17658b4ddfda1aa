"""The replicas of one model, each in its own process, and the handle through which the ingress calls them."""

from dataclasses import replace
from typing import Any

import ray
from ray import serve
from ray.exceptions import RayError, RayTaskError
from ray.serve.exceptions import BackPressureError, RayServeException
from ray.serve.handle import DeploymentHandle

from app.cluster.messages import ReplicaRequest, ReplicaResponse, call_app
from app.errors import Overloaded, VaeError
from app.main import create_app
from app.settings import read_settings

_ALL_SECONDS = 5.0
"""Maximum seconds to wait for all replicas."""


class Replica:
    """One process of a deployment: the whole application, with one model.

    The model changes only with the deployment, so that all replicas serve the same.
    """

    async def __init__(self, settings: dict[str, Any]) -> None:  # type: ignore[misc]  # Ray awaits it
        """`settings` are fields of `Settings`; the others come from the environment.

        Raises:
            StartupError: a setting or a bundle is wrong; Ray shows the message in the deployment's status.
        """
        slots = int(ray.get_runtime_context().get_assigned_resources().get("CPU", 1))
        self._app = create_app(read_settings(**{"slots": max(1, slots)} | settings), managed=False)
        self._name = serve.get_replica_context().replica_tag
        self._lifespan = self._app.router.lifespan_context(self._app)
        self._state = await self._lifespan.__aenter__() or {}

    async def respond(self, request: ReplicaRequest) -> ReplicaResponse:
        """Return the application's response."""
        return replace(await call_app(self._app, request, self._state), replica=self._name)

    async def __del__(self) -> None:
        """Close the application; Ray calls this after the last request."""
        await self._lifespan.__aexit__(None, None, None)


class Replicas:
    """All replicas of one model, on any node."""

    def __init__(self, handle: DeploymentHandle) -> None:
        self._handle = handle

    async def ask(self, request: ReplicaRequest) -> ReplicaResponse:
        """Return the response of one replica, the less busy of two that Ray picks.

        Raises:
            Overloaded: too many requests wait, or the replica died before it responded.
        """
        try:
            response: ReplicaResponse = await self._handle.respond.remote(request)
        except BackPressureError:
            raise Overloaded("too many requests wait for this model") from None
        except RayTaskError as error:
            raise VaeError("a replica failed") from error
        except (RayError, RayServeException) as error:
            raise Overloaded("the process that worked on this request is gone; send it again") from error
        return response

    async def ask_all(self, request: ReplicaRequest) -> list[ReplicaResponse]:
        """Return the responses of all replicas that are not stopping; Ray's queue limits do not apply.

        Raises:
            Overloaded: a replica did not respond in time.
        """
        responses = self._handle.broadcast("respond", request)
        try:
            found = await responses.results_async(timeout_s=_ALL_SECONDS, return_exceptions=True)
        except TimeoutError:
            raise Overloaded("not every replica responded") from None
        return [response for response in found if isinstance(response, ReplicaResponse)]
