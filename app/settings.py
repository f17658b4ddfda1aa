"""The server's settings: `VAE_*` environment variables, read once at start-up and passed in."""

import os
import re
from ipaddress import ip_network
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field, NonNegativeInt, PositiveInt, SecretStr, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict

from app.errors import StartupError
from app.security.rates import read_rate


def _check_key(key: SecretStr | None) -> SecretStr | None:
    """Check that a header can carry the key; an empty key counts as none."""
    if not key:
        return None
    if not re.fullmatch("[!-~]{16,}", key.get_secret_value()):
        raise ValueError("a key has 16 characters or more, all of them visible ASCII")
    return key


def _check_path_prefix(path: str) -> str:
    """Return the prefix as ASGI expects it: with a slash at its beginning and none at its end."""
    path = path.rstrip("/")
    if path and not re.fullmatch("(/[^/?#\\s]+)+", path):
        raise ValueError("a path prefix looks like /vae")
    return path


def _check_rate(rate: str) -> str:
    """Check that a rate can be parsed, unless it is empty."""
    if rate:
        read_rate(rate)
    return rate


def _check_origins(text: str) -> str:
    """Check that each origin has no path: browsers send none."""
    for origin in filter(None, text.split(",")):
        if origin.strip() != "*" and not re.fullmatch(r"https?://[^/\s?#@]+", origin.strip()):
            raise ValueError("an origin looks like https://example.org, without a path")
    return text


def _check_hosts(text: str) -> str:
    """Check that each entry is a name alone: with a port or a scheme it would never match."""
    for name in filter(None, text.split(",")):
        if name.strip() != "*" and not re.fullmatch(r"[\w-]+(\.[\w-]+)*", name.strip(), re.ASCII):
            raise ValueError("a host name looks like vae.example.org, without a port")
    return text


def _check_networks(text: str) -> str:
    """Check that each entry is an address or a network: uvicorn would take another one for the name of a socket."""
    for entry in filter(None, text.split(",")):
        try:
            ip_network(entry.strip())
        except ValueError:
            if text != "*":
                raise ValueError("a proxy is an address, or a network such as 10.0.0.0/8") from None
    return text


Seconds = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Secret = Annotated[SecretStr | None, AfterValidator(_check_key)]
File = Annotated[Path | None, BeforeValidator(lambda path: path or None)]
"""A path, or None for the empty string, which compose files pass for a variable that is not set."""

_OTHER_VARIABLES = {"VAE_DATA_DIR", "VAE_URL"}
"""Variables of `python -m training` and of the command line."""


class Settings(BaseSettings):
    """The settings of one server. The field `host` is the variable `VAE_HOST`, and so on."""

    model_config = SettingsConfigDict(env_prefix="VAE_", frozen=True)

    host: str = Field("127.0.0.1", description="Address to listen on.")
    port: Annotated[int, Field(ge=0, le=65535)] = Field(8000, description="Port to listen on; 0 takes a free one.")
    root_path: Annotated[str, AfterValidator(_check_path_prefix)] = Field(
        "", description="Path prefix that a reverse proxy strips, such as `/vae`."
    )
    workers: PositiveInt = Field(1, description="Number of server processes.")
    log_level: Literal["critical", "error", "warning", "info", "debug"] = Field(
        "info", description="Lowest level that is logged."
    )
    log_format: Literal["text", "json"] = Field(
        "text", description="Format of the log: `text` for people, `json` for one JSON object a line."
    )
    shutdown_seconds: PositiveInt = Field(
        30, description="Seconds that running requests have to finish after SIGTERM; then they get 503."
    )

    models_dir: Path = Field(Path("models"), description="Directory of bundles, `<name>/<version>/manifest.json`.")
    models: str = Field("", description="Names of the models to serve, separated by commas; empty serves all of them.")
    default_model: str = Field(
        "mnist", description="Model for requests that name none; not needed if there is only one model."
    )
    execution_provider: Literal["auto", "cpu", "cuda"] = Field(
        "auto",
        description="Where ONNX Runtime runs: `auto` takes CUDA if it is usable, else the CPU; `cuda` requires CUDA.",
    )
    load_seconds: Seconds = Field(
        120, description="Maximum seconds to read, verify and warm up one bundle; then it is refused."
    )
    slots: NonNegativeInt = Field(
        0, description="Batches that each worker runs at once; 0 divides the CPUs by workers and threads."
    )
    threads: PositiveInt = Field(1, description="ONNX Runtime threads of each slot.")
    queue_seconds: Seconds = Field(30, description="Maximum seconds that rows wait for a slot; then 504.")
    wait_seconds: Seconds = Field(
        2, description="Reject requests with 503 if their predicted wait for a slot exceeds this many seconds."
    )
    batch_rows: PositiveInt = Field(512, description="Maximum rows of one batch; measured latency may lower it.")
    batch_seconds: Seconds = Field(
        0.01, description="Target for the duration of one batch, in seconds, by the latency measured at start-up."
    )
    queue_rows: PositiveInt = Field(
        4096,
        description="Maximum rows that wait for a slot; above it requests are rejected with 503, and with 422 if a"
        " request alone needs more. An image of more than 64 KiB counts as several rows, here and in a batch.",
    )
    tile_side: Annotated[int, Field(ge=64, le=8192)] = Field(
        512,
        description="Maximum side, in pixels, that a model of any size runs in one piece; larger images and their"
        " latents are split into overlapping tiles.",
    )
    whole_bytes: NonNegativeInt = Field(
        0,
        description="Maximum bytes that a larger image takes while it runs in one piece, if tiles would change it by"
        " more than a gray level (`latent.tiles` of the manifest). 0 takes an eighth of the memory limit, shared by the"
        " slots of all workers, or 1 GiB if there is no limit; 1 always takes tiles.",
    )

    auth: Literal["auto", "keys", "none"] = Field(
        "auto", description="Whether requests need a key: `auto` requires one if any key but the admin key is set."
    )
    api_key: Secret = Field(None, description="A key that all callers share, of 16 characters or more.")
    api_keys: SecretStr | None = Field(
        None, description="Several keys with names for the log: `web:KEY,batch:KEY`, or `web:sha256:HASH`."
    )
    keys_file: File = Field(
        None, description="File of keys, one a line, read again when it changes; `vaeserve key` writes it."
    )
    admin_key: Secret = Field(
        None,
        description="Key that also opens the management routes; these exist only with an admin key or a keys file.",
    )
    rate_limit: Annotated[str, AfterValidator(_check_rate)] = Field(
        "",
        description="Maximum requests of each key or, without keys, of each address: `600/minute`,"
        " `20/second;600/minute`.",
    )
    cors_origins: Annotated[str, AfterValidator(_check_origins)] = Field(
        "",
        description="Origins whose pages may use the server, separated by commas, or `*`; empty means its own only.",
    )
    allowed_hosts: Annotated[str, AfterValidator(_check_hosts)] = Field(
        "",
        description="Host names under which a server without keys may be called, separated by commas, or `*`; addresses"
        " and localhost are always allowed. If empty, a server on a loopback address allows no other, and others allow"
        " all.",
    )
    tls_certificate: File = Field(None, description="Certificate chain in PEM; the server then speaks only HTTPS.")
    tls_key: File = Field(None, description="Private key of the certificate in PEM, if it is in a file of its own.")
    trusted_proxies: Annotated[str, AfterValidator(_check_networks)] = Field(
        "",
        description="Addresses or networks of proxies whose X-Forwarded-For and -Proto headers are trusted, separated"
        " by commas, or `*`; empty trusts none.",
    )

    cache_bytes: NonNegativeInt = Field(
        32 * 2**20, description="Maximum bytes of cached responses in memory; 0 turns the cache off."
    )
    max_connections: PositiveInt = Field(
        1000,
        description="Maximum open connections of each worker; a further one takes the place of an idle one, or is"
        " refused with 503.",
    )
    max_connections_per_address: PositiveInt = Field(
        500,
        description="The same for the connections of one client address (IPv6: of one /64 network), except loopback and"
        " trusted proxies.",
    )
    keep_alive_seconds: Seconds = Field(
        75,
        description="Seconds that a connection without a request stays open; longer than a proxy in front keeps it.",
    )
    max_header_bytes: PositiveInt = Field(
        32 * 2**10, description="Maximum bytes of a request line and its headers, checked while they arrive; then 431."
    )
    receive_seconds: Seconds = Field(
        60, description="Maximum seconds for a request to arrive, and for a new connection to send one; then 408."
    )
    request_seconds: Seconds = Field(
        60, description="Maximum seconds to respond to a request that has arrived; then 504, and its work is cancelled."
    )
    send_seconds: Seconds = Field(
        60, description="Maximum seconds that a client may leave a response unread; then its connection is closed."
    )
    max_rows: PositiveInt = Field(256, description="Maximum images, latents or samples of one request.")
    max_draws: PositiveInt = Field(32_768, description="Maximum draws of one `/score`: its `k` times its images.")
    max_steps: Annotated[int, Field(ge=2)] = Field(64, description="Maximum interpolation steps between two points.")
    max_manifold: PositiveInt = Field(32, description="Maximum images along one side of the manifold.")
    max_body_bytes: PositiveInt = Field(
        32 * 2**20, description="Maximum bytes of a request body, checked while it arrives; then 413."
    )
    bodies_bytes: NonNegativeInt = Field(
        0,
        description="Maximum bytes of all bodies together that a worker holds; further ones are refused with 503. 0"
        " takes a sixteenth of the memory limit, shared by the workers, or 64 MiB if there is no limit; but at least"
        " twice `VAE_MAX_BODY_BYTES`.",
    )
    max_pixels: PositiveInt = Field(
        2**24,
        description="Maximum pixels of all images that a request sends, checked before they are decoded, and of all"
        " images that it generates.",
    )

    @property
    def asks_for_keys(self) -> bool:
        """Whether a request needs a key."""
        if self.auth == "auto":
            return bool(self.api_key or self.api_keys or self.keys_file)
        return self.auth == "keys"

    @property
    def has_management(self) -> bool:
        """Whether there are management routes: there is an admin key, or a keys file, which may contain one."""
        return self.admin_key is not None or self.keys_file is not None

    @property
    def chosen_models(self) -> frozenset[str]:
        """The names in `models`; empty if all models are served."""
        return frozenset(filter(None, (name.strip() for name in self.models.split(","))))

    @property
    def slot_count(self) -> int:
        """Slots of each worker. By default, workers x slots x threads do not exceed the CPUs of the process."""
        return self.slots or max(1, available_cpus() // (self.workers * self.threads))

    @property
    def run_bytes(self) -> int:
        """Maximum bytes that an image takes in one piece, in each slot."""
        limit = memory_limit()
        return self.whole_bytes or (2**30 if limit is None else limit // (8 * self.workers * self.slot_count))

    @property
    def held_bytes(self) -> int:
        """Maximum bytes of all bodies together that a worker holds."""
        limit = memory_limit()
        by_default = 2**26 if limit is None else limit // (16 * self.workers)
        return self.bodies_bytes or max(by_default, 2 * self.max_body_bytes)


def memory_limit(root: Path = Path("/sys/fs/cgroup")) -> int | None:
    """Return the container's limit of memory in bytes, from cgroup v2 or v1; None without a limit."""
    for name in ("memory.max", "memory/memory.limit_in_bytes"):
        try:
            limit = int((root / name).read_text())
        except (OSError, ValueError):  # no such file, or the limit is "max"
            continue
        return limit if limit < 2**60 else None  # v1 has a huge number instead of no limit
    return None


def available_cpus() -> int:
    """Return the number of CPUs that this process may use: its affinity, bounded by the quota of its cgroup."""
    affinity = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min(affinity, int(_cgroup_quota() or affinity)))


def _cgroup_quota(root: Path = Path("/sys/fs/cgroup")) -> float | None:
    """Return the container's CPU quota in CPUs, from cgroup v2 or v1; None without a limit."""
    try:
        if (root / "cpu.max").exists():
            quota, period = (root / "cpu.max").read_text().split()
        else:
            quota = (root / "cpu/cpu.cfs_quota_us").read_text()
            period = (root / "cpu/cpu.cfs_period_us").read_text()
        return float(quota) / float(period) if float(quota) > 0 else None
    except (OSError, ValueError):  # no such files, or the quota is "max"
        return None


def read_settings(**given: Any) -> Settings:
    """Return the settings: the `given` ones, and the others from the environment.

    Raises:
        StartupError: a value is out of range or of the wrong type; the message names the variable.
    """
    try:
        return Settings(**given)
    except ValidationError as error:
        wrong = error.errors(include_url=False)[0]
        raise StartupError(f"VAE_{str(wrong['loc'][0]).upper()}: {wrong['msg']}") from None


def unknown_variables() -> list[str]:
    """Return the `VAE_*` variables of the environment that no setting reads; they are probably misspelt."""
    known = {f"VAE_{name.upper()}" for name in Settings.model_fields} | _OTHER_VARIABLES
    return sorted(name for name in os.environ if name.upper().startswith("VAE_") and name.upper() not in known)
