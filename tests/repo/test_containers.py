"""The container files: what compose makes of them, what hadolint says, and what would be in the image."""

import io
import json
import os
import re
import runpy
import shutil
import subprocess
import sys
import tarfile
import tomllib
from importlib.metadata import files
from pathlib import Path
from typing import Any

import pytest
import yaml

from app import __version__, healthcheck
from app.settings import Settings
from tests.conftest import ROOT
from tests.pages import blocks, commands
from tests.processes import PATIENCE

DOCKERFILE = (ROOT / "Dockerfile").read_text()
PAGE = (ROOT / "docs/containers.md").read_text()
SERVICES = {
    (): {"vaeserve"},
    ("cpu",): {"vaeserve"},
    ("gpu",): {"vaeserve-gpu"},
    ("observability",): {"vaeserve", "prometheus", "grafana"},
}
IMAGE = runpy.run_path(str(ROOT / "scripts/image"), run_name="image")


def tool(name: str) -> str:
    """The path of a program of the extra `test`."""
    found = shutil.which(name, path=Path(sys.executable).parent)
    if found is None:
        missing = f"{name} is absent: install the extra `test`"
        pytest.fail(missing) if os.environ.get("CI") else pytest.skip(missing)
    return found


def compose(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    ours = ("VAE_", "COMPOSE_", "OTEL_")
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(ours)}
    command = [tool("docker-compose"), *arguments]
    return subprocess.run(
        command, cwd=ROOT, env=inherited | environment, capture_output=True, text=True, timeout=PATIENCE, check=False
    )


def config(*profiles: str, **environment: str) -> dict[str, Any]:
    """The services as compose understands them."""
    options = [f"--profile={profile}" for profile in profiles]
    done = compose(*options, "config", "--format=json", **environment)
    assert (done.returncode, done.stderr) == (0, "")
    services: dict[str, Any] = json.loads(done.stdout)["services"]
    return services


@pytest.mark.parametrize("name", ["Dockerfile", "deploy/tracing/Dockerfile"])
def test_the_dockerfile_is_as_hadolint_wants_it(name: str) -> None:
    done = subprocess.run([tool("hadolint"), ROOT / name], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


@pytest.mark.parametrize("profiles", SERVICES)
def test_a_profile_starts_what_the_page_says(profiles: tuple[str, ...]) -> None:
    assert set(config(*profiles)) == SERVICES[profiles]
    shown = " ".join(["docker compose", *(f"--profile {profile}" for profile in profiles), "up --build"])
    assert profiles == ("cpu",) or f"| `{shown}` |" in PAGE


def test_only_one_server_takes_the_port() -> None:
    for services in map(config, ("cpu", "gpu", "observability")):
        ports = [port["published"] for service in services.values() for port in service["ports"]]
        assert len(ports) == len(set(ports))


@pytest.mark.parametrize("profile", ["cpu", "gpu", "observability"])
def test_what_is_started_is_confined(profile: str) -> None:
    for name, service in config(profile).items():
        assert service["read_only"], name
        assert service["cap_drop"] == ["ALL"], name
        assert service["security_opt"] == ["no-new-privileges:true"], name
        assert {port["host_ip"] for port in service["ports"]} == {"127.0.0.1"}, name
        assert not service.get("privileged"), name
        binds = [volume for volume in service["volumes"] if volume["type"] == "bind"]
        assert all(volume["read_only"] for volume in binds), name
        if "build" not in service:
            assert re.search(r":v?\d+\.\d+\.\d+$", service["image"]), name
            assert service["user"].split(":")[0] not in ("0", "root"), name


def test_what_is_mounted_is_there_and_where_it_is_looked_for() -> None:
    """Docker would make an empty folder of what is missing."""
    services = config("observability")
    for service in services.values():
        for volume in service["volumes"]:
            assert volume["type"] == "volume" or Path(volume["source"]).exists(), volume["source"]
    prometheus = yaml.safe_load((ROOT / "deploy/prometheus/prometheus.yml").read_text())
    targets = [config["targets"] for job in prometheus["scrape_configs"] for config in job["static_configs"]]
    assert ["vaeserve:8000"] in targets
    mounted = {volume["target"] for volume in services["grafana"]["volumes"]}
    for path in (ROOT / "deploy/grafana/provisioning/dashboards").glob("*.yml"):
        providers = yaml.safe_load(path.read_text())["providers"]
        assert {provider["options"]["path"] for provider in providers} <= mounted
    for path in (ROOT / "deploy/grafana/provisioning/datasources").glob("*.yml"):
        assert {source["url"] for source in yaml.safe_load(path.read_text())["datasources"]} == {
            "http://prometheus:9090"
        }


def test_the_server_is_published_where_it_is_asked_to_be() -> None:
    for profile, name in (("cpu", "vaeserve"), ("gpu", "vaeserve-gpu")):
        (port,) = config(profile)[name]["ports"]
        assert (port["host_ip"], port["published"], port["target"]) == ("127.0.0.1", "8000", 8000)
        (port,) = config(profile, VAE_PUBLISH="0.0.0.0", VAE_PORT="80")[name]["ports"]
        assert (port["host_ip"], port["published"], port["target"]) == ("0.0.0.0", "80", 8000)


def test_limits_of_cpu_and_memory_are_options() -> None:
    assert not {"cpus", "mem_limit"} & set(config()["vaeserve"])
    service = config(VAE_CPUS="1.5", VAE_MEMORY="2g")["vaeserve"]
    assert (service["cpus"], int(service["mem_limit"])) == (1.5, 2 * 2**30)


OF_THE_CONTAINER = {"VAE_HOST", "VAE_PORT", "VAE_MODELS_DIR", "VAE_KEYS_FILE", "VAE_TLS_CERTIFICATE", "VAE_TLS_KEY"}
OF_OPENTELEMETRY = {
    "OTEL_EXPORTER_OTLP_ENDPOINT",
    "OTEL_EXPORTER_OTLP_HEADERS",
    "OTEL_RESOURCE_ATTRIBUTES",
    "OTEL_SERVICE_NAME",
    "OTEL_TRACES_SAMPLER",
    "OTEL_TRACES_SAMPLER_ARG",
}


def test_every_setting_reaches_the_container_under_its_name() -> None:
    given = {f"VAE_{name.upper()}": "7" for name in Settings.model_fields}
    passed = dict.fromkeys(given.keys() - OF_THE_CONTAINER, "7") | dict.fromkeys(OF_OPENTELEMETRY)
    assert config(**given)["vaeserve"]["environment"] == passed, "run scripts/readme"
    assert config("gpu", **given)["vaeserve-gpu"]["environment"] == passed | {"VAE_EXECUTION_PROVIDER": "cuda"}


def test_variables_of_opentelemetry_reach_the_container(tmp_path: Path) -> None:
    """From a file: compose itself, in whose environment they were, would send spans of its own."""
    (tmp_path / "env").write_text("".join(f"{name}=a=7\n" for name in OF_OPENTELEMETRY))
    done = compose("--profile=cpu", f"--env-file={tmp_path}/env", "config", "--format=json")
    environment = json.loads(done.stdout)["services"]["vaeserve"]["environment"]
    assert {name: environment[name] for name in OF_OPENTELEMETRY} == dict.fromkeys(OF_OPENTELEMETRY, "a=7")


def test_a_setting_that_is_not_given_is_not_set() -> None:
    environment = config()["vaeserve"]["environment"]
    assert environment.pop("VAE_ALLOWED_HOSTS") == "vaeserve"  # for other containers; without keys it is needed
    assert set(environment.values()) == {None}


def test_settings_of_the_container_are_documented_as_such() -> None:
    for name in OF_THE_CONTAINER - {"VAE_PORT"}:
        assert f"`{name}`" in PAGE


def test_the_gpu_server_is_the_cpu_server_but_for_what_a_gpu_needs() -> None:
    cpu, gpu = config()["vaeserve"], config("gpu")["vaeserve-gpu"]
    differing = {key for key in cpu.keys() | gpu.keys() if cpu.get(key) != gpu.get(key)}
    assert differing == {"profiles", "build", "image", "environment", "networks", "deploy"}
    assert gpu["environment"]["VAE_EXECUTION_PROVIDER"] == "cuda"
    assert gpu["networks"]["default"]["aliases"] == ["vaeserve"]
    suffix = gpu["build"]["args"]["VARIANT"]
    assert (ROOT / f"requirements{suffix}.lock").exists()
    assert (ROOT / f"sbom{suffix}.cdx.json").exists()


SECRETS, TRACING = blocks(PAGE, "yaml")


def overridden(path: Path, text: str) -> dict[str, Any]:
    """The server as compose understands it together with an override file."""
    path.write_text(text)
    done = compose("--file=docker-compose.yml", f"--file={path}", "config", "--format=json")
    assert (done.returncode, done.stderr) == (0, "")
    service: dict[str, Any] = json.loads(done.stdout)["services"]["vaeserve"]
    return service


def test_the_secrets_of_the_page_fit_the_compose_file(tmp_path: Path) -> None:
    service = overridden(tmp_path / "docker-compose.override.yml", SECRETS)
    secrets = {f"/run/secrets/{secret['source']}" for secret in service["secrets"]}
    assert secrets == {value for name, value in service["environment"].items() if name in OF_THE_CONTAINER}
    prometheus = yaml.safe_load(SECRETS)["services"]["prometheus"]
    wanted = re.findall(
        r"credentials_file: /run/secrets/(\w+)", (ROOT / "deploy/prometheus/prometheus.yml").read_text()
    )
    assert prometheus["secrets"] == wanted


def test_the_image_with_the_extra_otel_is_built_upon_the_servers(tmp_path: Path) -> None:
    service = overridden(tmp_path / "docker-compose.override.yml", TRACING)
    path = ROOT / service["build"]["dockerfile"]
    text = path.read_text()
    assert f"-t {service['image']} -f {service['build']['dockerfile']} ." in text
    assert f"ARG BASE={config()['vaeserve']['image']}:latest\nFROM $BASE\n" in text
    assert re.findall(r"^USER (.*)$", text, re.MULTILINE)[-1] == re.findall(r"^USER (.*)$", DOCKERFILE, re.MULTILINE)[0]
    extra = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]["otel"]
    assert set(re.findall(r"opentelemetry-[\w-]+", text)) == {re.split("[><=]", line)[0] for line in extra}
    copied = re.findall(r"^COPY (\S+) \S+$", text, re.MULTILINE)
    admitted = re.findall(r"^!(.+)$", path.with_name("Dockerfile.dockerignore").read_text(), re.MULTILINE)
    assert copied == admitted
    assert all(name in PAGE for name in OF_OPENTELEMETRY - {"OTEL_TRACES_SAMPLER_ARG"})


def test_the_owners_that_the_page_gives_secrets_to_are_who_reads_them() -> None:
    owners = re.findall(r"chown (?:-R )?(\d+) (\S+)", PAGE)
    prometheus = config("observability")["prometheus"]["user"].split(":")[0]
    (server,) = re.findall(r"^USER (\d+):", DOCKERFILE, flags=re.MULTILINE)
    assert owners == [(server, "secrets"), (prometheus, "secrets/metrics-key")]


def test_every_build_argument_that_is_named_is_the_dockerfiles() -> None:
    dockerfiles = DOCKERFILE + (ROOT / "deploy/tracing/Dockerfile").read_text()
    known = set(re.findall(r"^ARG (\w+)=", dockerfiles, flags=re.MULTILINE))
    pages = [*(ROOT / "docs").glob("*.md"), *(ROOT / "deploy").rglob("*.yaml"), ROOT / "README.md", ROOT / "Dockerfile"]
    named = {
        name for page in pages for name in re.findall(r"(?:--build-arg|built with) `?(\w+)=", page.read_text("utf-8"))
    }
    assert "VARIANT" in named
    assert named <= known


COMMANDS = [line for text in blocks(PAGE, "sh") for line in commands(text)]


@pytest.mark.parametrize("command", [line for line in COMMANDS if "docker compose" in line])
def test_a_compose_command_of_the_page_is_one(command: str) -> None:
    variables, _, rest = command.partition("docker compose ")
    words = rest.split()
    at = next(index for index, word in enumerate(words) if word in ("up", "build", "exec", "kill", "down"))
    options, (verb, *given) = words[:at], words[at:]
    helped = compose(verb, "--help")
    for option in (word for word in given if word.startswith("--")):
        assert re.search(rf"{option}\b", helped.stdout), option
    services = {"vaeserve", "prometheus", "grafana"}
    assert {word for word in given if not word.startswith(("-", "/")) and word != "cat"} <= services
    assert compose(*options, "config", "--quiet", **dict(pair.split("=") for pair in variables.split())).returncode == 0


def test_the_other_commands_of_the_page_are_what_they_were_when_they_were_tried() -> None:
    """They need an engine; those of compose are read above."""
    others = [line for line in COMMANDS if "docker compose" not in line]
    assert [line.split()[0] for line in others] == [
        *("mkdir", "vaeserve", "vaeserve", "sudo"),
        *("docker", "docker", "docker", "scripts/image", "docker", "git"),
    ]
    confined, run = config()["vaeserve"], others[6]
    assert f"--tmpfs {confined['tmpfs'][0]} " in run
    for option in (
        "--read-only",
        "--cap-drop ALL",
        "--security-opt no-new-privileges",
        "--publish 127.0.0.1:8000:8000",
    ):
        assert option in run


def test_what_the_dockerfile_says_is_so() -> None:
    assert f"ARG VERSION={__version__}\n" in DOCKERFILE
    assert 'CMD ["python", "-m", "app.healthcheck"]' in DOCKERFILE
    (timeout,) = re.findall(r"--timeout=(\d+)s", DOCKERFILE)
    assert int(timeout) > healthcheck.TIMEOUT
    assert set(re.findall(r"^FROM (\S+)", DOCKERFILE, flags=re.MULTILINE)) == {IMAGE["BASE"]}
    sources = re.findall(r"^COPY (?!--from)(.+) \S+$", DOCKERFILE, flags=re.MULTILINE)
    allowed = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    assert {name for line in sources for name in line.split()} == allowed


@pytest.fixture
def laid_out(tmp_path: Path) -> Path:
    """A folder with what the build copies and installs, in links, before it is pruned."""
    site = tmp_path / "opt/venv/lib/python3.11/site-packages"
    ours = [path for folder in ("app", "models") for path in (ROOT / folder).rglob("*") if path.is_file()]
    pairs = [(path, tmp_path / "srv" / path.relative_to(ROOT)) for path in ours if "__pycache__" not in path.parts]
    for name in re.findall(r"^([\w.-]+)==", (ROOT / "requirements.lock").read_text(), flags=re.MULTILINE):
        inside = [path for path in files(name) or () if ".." not in path.parts and "__pycache__" not in path.parts]
        pairs += [(Path(str(path.locate())), site / path) for path in inside]
    for source, target in pairs:
        target.parent.mkdir(parents=True, exist_ok=True)
        if source.exists():
            target.symlink_to(source)
    return tmp_path


def scan(folder: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, ROOT / "scripts/image", "--folder", folder]
    return subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE, check=False)


def test_nothing_is_in_the_image_that_has_no_business_there(laid_out: Path) -> None:
    before = scan(laid_out)
    assert before.returncode == 1
    assert "/numpy/_core/include/numpy/ndarraytypes.h: a source or header for compilers" in before.stderr
    assert "/numpy/tests/test_lazyloading.py: tests" in before.stderr
    subprocess.run([sys.executable, ROOT / "scripts/prune", laid_out / "opt/venv"], check=True)
    after = scan(laid_out)
    assert (after.returncode, after.stderr) == (0, "")
    assert "site-packages/onnxruntime\n" in after.stdout
    assert "srv/models/mnist\n" in after.stdout


def test_what_is_left_after_pruning_serves(laid_out: Path) -> None:
    subprocess.run([sys.executable, ROOT / "scripts/prune", laid_out / "opt/venv"], check=True)
    program = "from app.main import create_app; from app.settings import Settings; create_app(Settings())"
    environment = {"PYTHONPATH": str(laid_out / "opt/venv/lib/python3.11/site-packages"), "PATH": os.environ["PATH"]}
    done = subprocess.run(
        [sys.executable, "-S", "-W", "error", "-c", program],
        cwd=laid_out / "srv",
        env=environment,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize(
    ("path", "reason"),
    [
        ("srv/app/tests/test_x.py", "tests"),
        ("opt/venv/lib/python3.11/site-packages/x/include/x.h", "a source or header for compilers"),
        ("opt/venv/bin/pip3", "a build tool"),
        ("opt/venv/lib/python3.11/site-packages/torch/__init__.py", "a package that the server does not need"),
        ("srv/training/data.py", "a folder for developers"),
        ("srv/.git/HEAD", "version control"),
        ("root/.cache/pip/x", "a cache"),
        ("srv/models/.env", "a secret"),
        ("srv/app/server.key", "a secret"),
    ],
)
def test_each_kind_of_unwanted_file_is_found(path: str, reason: str, tmp_path: Path) -> None:
    (tmp_path / path).parent.mkdir(parents=True)
    (tmp_path / path).write_text("x")
    done = scan(tmp_path)
    assert (done.returncode, f"{path}: {reason}" in done.stderr.splitlines()) == (1, True), done


@pytest.mark.parametrize(
    ("mode", "reasons"),
    [
        (0o644, []),
        (0o755, []),
        (0o640, ["not readable by the image's user"]),
        (0o666, ["writable by anyone"]),
        (0o4755, ["runs as another user"]),
    ],
)
def test_permissions_are_looked_at(mode: int, reasons: list[str]) -> None:
    assert list(IMAGE["wrong"](IMAGE["Entry"]("srv/file", 1, mode))) == reasons


def test_an_empty_or_a_large_image_is_told(tmp_path: Path) -> None:
    assert "the image is empty" in scan(tmp_path).stderr
    with (tmp_path / "large").open("wb") as file:
        file.truncate(IMAGE["LIMIT"] * 10**6 + 1)  # takes no room
    assert "more than 250 MB" in scan(tmp_path).stderr


def archived(entries: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name, content in entries.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return buffer.getvalue()


def test_layers_of_the_base_are_left_out() -> None:
    manifest = [{"Config": "c.json", "Layers": ["a/layer.tar", "b/layer.tar"]}]
    saved = archived(
        {
            "manifest.json": json.dumps(manifest).encode(),
            "c.json": json.dumps({"rootfs": {"diff_ids": ["sha256:a", "sha256:b"]}}).encode(),
            "a/layer.tar": archived({"usr/bin/gcc": b"of the base"}),
            "b/layer.tar": archived({"srv/app/main.py": b"ours"}),
        }
    )
    found = list(IMAGE["of_archive"](io.BytesIO(saved), {"sha256:a"}))
    assert [(entry.path, entry.size) for entry in found] == [("srv/app/main.py", 4)]
