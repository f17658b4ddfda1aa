"""`vaeserve models`: the models of a server."""

from dataclasses import dataclass
from typing import Any

from app.cli import options
from app.cli.client import connect
from app.cli.images import print_json
from app.cli.terminal import table

NUMBERS = ("version", "NLL", "-ELBO", "queued")


@dataclass(frozen=True)
class Models(options.Command):
    """List the models and their states.

    NLL (the IWAE-k bound) and -ELBO are means over held-out images, in nats per image, lower is better; compare numbers
    of the same data and binarization only. `queued` is the number of rows that wait for the model now. --json prints
    the manifests, too.
    """

    EXAMPLES = (
        ("The models of the server", "vaeserve models"),
        ("A bundle's whole manifest", "vaeserve models --bundle models/mnist/2 --json"),
    )

    as_json: options.Json = False
    url: options.Url = options.DEFAULT_URL
    api_key: options.ApiKey = None
    bundle: options.Bundle = None

    async def run(self) -> None:
        async with connect(self.url, self.api_key, self.bundle) as server:
            document = await server.json("GET", "models")
        if self.as_json:
            print_json(document)
        else:
            table([_row(model) for model in document.get("models", [])], NUMBERS)


def _row(model: dict[str, Any]) -> dict[str, str]:
    manifest = model["manifest"]
    image, metrics = manifest["image"], manifest.get("metrics", {})
    return {
        "model": model["name"],
        "version": str(model["version"]),
        "default": "default" if model["default"] else "",
        "image": f"{_sizes(image['height'], image['width'])} {'gray' if image['channels'] == 1 else 'color'}",
        "latent": _sizes(*manifest["latent"]["shape"]),
        "likelihood": manifest["likelihood"],
        "NLL": _nats(metrics.get("nll")),
        "-ELBO": _nats(metrics.get("negative_elbo")),
        "state": model["state"],
        "queued": str(model["queued_rows"]),
    }


def _sizes(*sizes: int | None) -> str:
    return " x ".join(str(size or "any") for size in sizes)


def _nats(value: Any) -> str:
    return f"{value:.2f}" if isinstance(value, int | float) else ""
