"""`vaeserve models`: the models of a server."""

from typing import Any

from app.cli import options
from app.cli.client import connect
from app.cli.images import print_json
from app.cli.terminal import table

EXAMPLES = (
    ("The models of the server", "vaeserve models"),
    ("A bundle's whole manifest", "vaeserve models --bundle models/mnist/2 --json"),
)
COLUMNS = {
    "model": "left",
    "version": "right",
    "default": "left",
    "image": "left",
    "latent": "left",
    "likelihood": "left",
    "NLL": "right",
    "-ELBO": "right",
    "state": "left",
    "queued": "right",
}


async def models(
    as_json: options.Json = False,
    url: options.Url = options.DEFAULT_URL,
    api_key: options.ApiKey = None,
    bundle: options.Bundle = None,
) -> None:
    """List the models and their states.

    NLL (the IWAE-k bound) and -ELBO are means over held-out images, in nats per image, lower is better; compare numbers
    of the same data and binarization only. `queued` is the number of rows that wait for the model now. --json prints
    the manifests, too.
    """
    async with connect(url, api_key, bundle) as server:
        document = await server.json("GET", "models")
    if as_json:
        print_json(document)
    else:
        table(None, COLUMNS, [_row(model) for model in document.get("models", [])])


def _row(model: dict[str, Any]) -> list[str]:
    manifest = model["manifest"]
    image, metrics = manifest["image"], manifest.get("metrics", {})
    return [
        model["name"],
        str(model["version"]),
        "default" if model["default"] else "",
        f"{_size(image['height'])} x {_size(image['width'])} {'gray' if image['channels'] == 1 else 'color'}",
        " x ".join(map(_size, manifest["latent"]["shape"])),
        manifest["likelihood"],
        _nats(metrics.get("nll")),
        _nats(metrics.get("negative_elbo")),
        model["state"],
        str(model.get("queued_rows", "")),
    ]


def _size(size: int | None) -> str:
    return "any" if size is None else str(size)


def _nats(value: Any) -> str:
    return f"{value:.2f}" if isinstance(value, int | float) else ""
