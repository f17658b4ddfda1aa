"""Servers that `bench.serving` compares with: a minimal FastAPI service, and an ASGI application that does nothing.

uvicorn starts them: `bench.peers:naive` and `bench.peers:bare`, on the bundle in `PEER_BUNDLE`.
"""

import base64
import io
import os
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
from fastapi import FastAPI, Response
from PIL import Image
from pydantic import BaseModel

Message = dict[str, Any]


class Images(BaseModel):
    images: list[str]


class Posteriors(BaseModel):
    mean: list[list[float]]
    log_std: list[list[float]]


def naive() -> FastAPI:
    """A minimal service: FastAPI endpoints in its thread pool, Pillow, one `session.run` per request."""
    bundle = Path(os.environ["PEER_BUNDLE"])
    encoder, decoder = (ort.InferenceSession(bundle / f"{graph}.onnx") for graph in ("encoder", "decoder"))
    app = FastAPI()

    @app.post("/encode")
    def encode(body: Images) -> Posteriors:
        opened = [Image.open(io.BytesIO(base64.b64decode(image))).convert("L") for image in body.images]
        images = np.stack([np.asarray(image.resize((28, 28)))[None] for image in opened])
        mean, log_std = encoder.run(["mean", "log_std"], {"image": images})
        return Posteriors(mean=mean.tolist(), log_std=log_std.tolist())

    @app.get("/sample/image")
    def sample(n: int = 1) -> Response:
        latents = np.random.standard_normal((n, decoder.get_inputs()[0].shape[1])).astype(np.float32)
        images = decoder.run(["image"], {"latent": latents})[0]
        buffer = io.BytesIO()
        Image.fromarray(np.concatenate(images[:, 0], axis=1)).save(buffer, format="PNG")
        return Response(buffer.getvalue(), media_type="image/png")

    return app


async def bare(scope: Message, receive: Any, send: Any) -> None:
    """Read the body and respond 200 with two numbers: the cost of uvicorn alone."""
    if scope["type"] == "lifespan":
        while (await receive())["type"] != "lifespan.shutdown":
            await send({"type": "lifespan.startup.complete"})
        await send({"type": "lifespan.shutdown.complete"})
        return
    while (await receive()).get("more_body"):
        pass
    headers = [(b"content-type", b"application/json"), (b"content-length", b"9")]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": b"[0.1,0.2]"})
