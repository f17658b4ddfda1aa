"""Settings: `VAE_*` variables, read once at start-up and passed in. The README lists every one of them."""

import os
import re
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field, SecretStr, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict

from app.errors import StartupError
from app.security.rates import read_rate

Positive = Annotated[int, Field(gt=0)]
Seconds = Annotated[float, Field(gt=0, allow_inf_nan=False)]


def _key_or_none(key: SecretStr | None) -> SecretStr | None:
    """A key that a header can carry as it is; an empty one is none."""
    if key is None or not key.get_secret_value():
        return None
    if not re.fullmatch("[!-~]{16,}", key.get_secret_value()):
        raise ValueError("a key has 16 characters or more, all of them visible ASCII")
    return key


def _without_end(path: str) -> str:
    """A path prefix as ASGI has it: it begins with a slash and does not end with one."""
    path = path.rstrip("/")
    if path and not re.fullmatch("(/[^/?#\\s]+)+", path):
        raise ValueError("a path such as /vae")
    return path


def _rate_or_empty(rate: str) -> str:
    if rate:
        read_rate(rate)
    return rate


def _origins(text: str) -> str:
    """Origins as browsers send them."""
    for origin in filter(None, text.split(",")):
        if origin.strip() != "*" and not re.fullmatch(r"https?://[^/\s?#@]+", origin.strip()):
            raise ValueError("an origin is such as https://example.org, without a path")
    return text


Key = Annotated[SecretStr | None, AfterValidator(_key_or_none)]
File = Annotated[Path | None, BeforeValidator(lambda path: path or None)]
"""An empty path is none, as compose files pass on what is not set; it would be the working directory."""

_ELSEWHERE = {"VAE_DATA_DIR", "VAE_URL"}  # read by `python -m training` and by the command line


class Settings(BaseSettings):
    """The settings of one server. Field `host` is the variable `VAE_HOST`, and so on."""

    model_config = SettingsConfigDict(env_prefix="VAE_", frozen=True)

    host: str = Field("127.0.0.1", description="Address to listen on.")
    port: Annotated[int, Field(ge=0, le=65535)] = Field(8000, description="Port to listen on; 0 takes a free one.")
    root_path: Annotated[str, AfterValidator(_without_end)] = Field(
        "", description="Path prefix that a reverse proxy strips, such as `/vae`."
    )
    workers: Positive = Field(1, description="Server processes.")
    log_level: Literal["critical", "error", "warning", "info", "debug"] = Field(
        "info", description="Least level logged."
    )
    log_format: Literal["text", "json"] = Field("text", description="Lines for people, or one JSON object a line.")
    shutdown_seconds: Positive = Field(30, description="Time that accepted requests get to end after SIGTERM.")

    models_dir: Path = Field(Path("models"), description="Directory of bundles, `<name>/<version>/manifest.json`.")
    models: str = Field(
        "", description="Names of the models to serve, comma between them; all of the directory if empty."
    )
    default_model: str = Field(
        "mnist", description="Model of a request that names none; a lone model needs no setting."
    )
    execution_provider: Literal["auto", "cpu", "cuda"] = Field(
        "auto", description="Where ONNX Runtime runs: `auto` takes CUDA where it is there; `cuda` insists."
    )
    slots: Annotated[int, Field(ge=0)] = Field(
        0, description="Batches that a worker runs at once; 0 shares out the CPUs."
    )
    threads: Positive = Field(1, description="ONNX Runtime threads a slot.")
    queue_seconds: Seconds = Field(30, description="Longest wait for a slot; then 504.")
    wait_seconds: Seconds = Field(
        2,
        description="Longest wait that a request is let in for, by measured latency; beyond it requests are refused"
        " with 503.",
    )
    batch_rows: Positive = Field(512, description="Most rows in one batch; measured latency sets it lower.")
    batch_seconds: Seconds = Field(
        0.01, description="About the longest time that one batch may take, by the latency measured at start-up."
    )
    queue_rows: Positive = Field(
        4096,
        description="Most rows waiting; beyond it requests are refused with 503, and with 422 those that need more at"
        " once. An image of more than 64 KiB counts as several rows, in a batch, too.",
    )
    tile_side: Annotated[int, Field(ge=64, le=8192)] = Field(
        512,
        description="Longest side, in pixels, that goes through a model of any size at once; larger images and their"
        " latents go through in overlapping tiles.",
    )

    auth: Literal["auto", "keys", "none"] = Field(
        "auto", description="Whether requests need a key: `auto` asks for one where there are any beside the admin key."
    )
    api_key: Key = Field(None, description="The one key of all callers, 16 characters or more.")
    api_keys: SecretStr | None = Field(
        None, description="Several keys with names for the log: `web:KEY,batch:KEY`, or `web:sha256:HASH`."
    )
    keys_file: File = Field(
        None, description="File of keys, one a line; it is read again when it changes. `vaeserve key` writes it."
    )
    admin_key: Key = Field(
        None,
        description="Key that opens the management routes, too; without one, and without a keys file, there are none.",
    )
    rate_limit: Annotated[str, AfterValidator(_rate_or_empty)] = Field(
        "",
        description="Requests that a key, or without keys an address, may send: `600/minute`, `20/second;600/minute`.",
    )
    cors_origins: Annotated[str, AfterValidator(_origins)] = Field(
        "", description="Origins whose pages may use the server, between commas, or `*`; without, their own alone."
    )
    tls_certificate: File = Field(None, description="Certificate chain, PEM: the server then speaks HTTPS alone.")
    tls_key: File = Field(None, description="The certificate's private key, PEM, where it is in a file of its own.")
    trusted_proxies: str = Field(
        "127.0.0.1", description="Addresses of proxies whose X-Forwarded-For and -Proto are believed, between commas."
    )

    cache_bytes: Annotated[int, Field(ge=0)] = Field(
        32 * 2**20, description="Memory for answers that need not be computed again; 0 keeps none."
    )
    max_connections: Positive = Field(
        1000, description="Most open connections of a worker; beyond it a new one is refused with 503."
    )
    max_header_bytes: Positive = Field(
        32 * 2**10, description="Largest request line and headers; they are stopped while they stream."
    )
    receive_seconds: Seconds = Field(
        60, description="Longest time for a request to arrive, and for a new connection to send one; then 408."
    )
    request_seconds: Seconds = Field(
        60, description="Longest time to answer a request that has arrived; then 504, and its work is dropped."
    )
    send_seconds: Seconds = Field(
        60, description="Longest time that a client may leave an answer unread; then its connection is closed."
    )
    max_rows: Positive = Field(256, description="Most images or latents in one request, and most samples.")
    max_draws: Positive = Field(32_768, description="Most draws of one `/score`: its `k` times its images.")
    max_steps: Annotated[int, Field(ge=2)] = Field(64, description="Most interpolation steps between two points.")
    max_manifold: Positive = Field(32, description="Most pictures along one side of the manifold.")
    max_body_bytes: Positive = Field(32 * 2**20, description="Largest request body; it is stopped while it streams.")
    max_pixels: Positive = Field(
        2**24,
        description="Most pixels in the received pictures of a request, checked before they are decoded, and in the"
        " images that it makes.",
    )

    @property
    def asks_for_keys(self) -> bool:
        """Whether a request needs a key."""
        if self.auth == "auto":
            return bool(self.api_key or (self.api_keys and self.api_keys.get_secret_value()) or self.keys_file)
        return self.auth == "keys"

    @property
    def has_management(self) -> bool:
        """Whether there are management routes: where there are admin keys, or may be."""
        return self.admin_key is not None or self.keys_file is not None

    @property
    def chosen_models(self) -> frozenset[str]:
        """The names in `models`; none, if all are to be served."""
        return frozenset(filter(None, (name.strip() for name in self.models.split(","))))

    @property
    def slot_count(self) -> int:
        """Slots of each worker, so that workers x slots x threads do not exceed the CPUs that they may use."""
        return self.slots or max(1, available_cpus() // (self.workers * self.threads))


def available_cpus() -> int:
    """CPUs that this process may use: its affinity, bounded by its cgroup's quota."""
    affinity = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min(affinity, int(_cgroup_quota() or affinity)))


def _cgroup_quota(root: Path = Path("/sys/fs/cgroup")) -> float | None:
    """CPUs' worth of time that the container's cgroup allows (v2, then v1); None without a limit."""
    try:
        if (root / "cpu.max").exists():
            quota, period = (root / "cpu.max").read_text().split()
        else:
            quota = (root / "cpu/cpu.cfs_quota_us").read_text()
            period = (root / "cpu/cpu.cfs_period_us").read_text()
        return float(quota) / float(period) if float(quota) > 0 else None
    except (OSError, ValueError):  # no such files, or the quota "max"
        return None


def read_settings(**given: Any) -> Settings:
    """Settings as they are given, the others from the environment.

    Raises:
        StartupError: a value is out of range or of the wrong type; the message names the variable.
    """
    try:
        return Settings(**given)
    except ValidationError as error:
        wrong = error.errors(include_url=False)[0]
        raise StartupError(f"VAE_{str(wrong['loc'][0]).upper()}: {wrong['msg']}") from None


def unknown_variables() -> list[str]:
    """`VAE_*` variables of the environment that no setting reads: most likely misspelt."""
    known = {f"VAE_{name.upper()}" for name in Settings.model_fields} | _ELSEWHERE
    return sorted(name for name in os.environ if name.upper().startswith("VAE_") and name.upper() not in known)
