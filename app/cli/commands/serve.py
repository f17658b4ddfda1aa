"""`vaeserve serve`: start the server."""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import typer

from app.cli import options


@dataclass(frozen=True)
class Serve(options.Command):
    """Serve the models directory over HTTP, until Ctrl-C.

    The same as `python -m app`. Every setting is an environment variable: `python -m app --help` lists all of them. An
    option here takes precedence over its variable.
    """

    EXAMPLES = (
        ("On 127.0.0.1:8000, the bundles of ./models", "vaeserve serve"),
        ("One bundle, on another port", "vaeserve serve --models-dir models/mnist/2 --port 8001"),
        ("Any other setting, by its variable", "VAE_MAX_ROWS=1024 vaeserve serve --workers 2"),
    )

    host: Annotated[str | None, typer.Option(envvar="VAE_HOST", help="Address to listen on.")] = None
    port: Annotated[
        int | None, typer.Option(envvar="VAE_PORT", min=0, max=65535, help="Port to listen on; 0 takes a free one.")
    ] = None
    models_dir: Annotated[
        Path | None,
        typer.Option(envvar="VAE_MODELS_DIR", help="Directory of bundles, <name>/<version>, or one bundle."),
    ] = None
    default_model: Annotated[
        str | None, typer.Option(envvar="VAE_DEFAULT_MODEL", help="Model for requests that name none.")
    ] = None
    workers: Annotated[int | None, typer.Option(envvar="VAE_WORKERS", min=1, help="Server processes.")] = None
    threads: Annotated[
        int | None, typer.Option(envvar="VAE_THREADS", min=1, help="ONNX Runtime threads per batch.")
    ] = None
    execution_provider: Annotated[
        Literal["auto", "cpu", "cuda"] | None,
        typer.Option(
            envvar="VAE_EXECUTION_PROVIDER",
            help="Where ONNX Runtime runs; auto takes CUDA if it is usable, else CPU.",
        ),
    ] = None
    log_level: Annotated[
        Literal["critical", "error", "warning", "info", "debug"] | None,
        typer.Option(envvar="VAE_LOG_LEVEL", help="Lowest level that is logged."),
    ] = None

    def run(self) -> None:
        from app.server.run import serve

        os.environ |= {f"VAE_{name.upper()}": str(value) for name, value in vars(self).items() if value is not None}
        serve()
