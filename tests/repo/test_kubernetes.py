"""deploy/kubernetes: every document as built is one that Kubernetes takes, and fits the others and the server."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import kubernetes_validate
import pytest
import yaml
from starlette.testclient import TestClient

from app.settings import Settings
from tests.conftest import ROOT
from tests.kustomize import HASH, MERGE_KEYS, Document, build
from training.recipe import load_recipe

FOLDER = ROOT / "deploy" / "kubernetes"
OVERLAYS = ["base", *sorted(f"overlays/{path.name}" for path in (FOLDER / "overlays").iterdir())]
VERSIONS = {"overlays/image": ["1.35", "1.37"]}
"""An image volume is newer than the rest."""
EVERYWHERE = ["1.30", "1.33", "1.37"]

SETTINGS = {f"VAE_{name.upper()}" for name in Settings.model_fields} | {"VAE_KEYS_FILE"}
BUILT = {name: build(FOLDER / name) for name in [*OVERLAYS, "training"]}


def of_kind(name: str, kind: str) -> Document:
    (found,) = [document for document in BUILT[name] if document["kind"] == kind]
    return found


def pod(name: str) -> Document:
    spec: Document = of_kind(name, "Deployment")["spec"]["template"]
    return spec


def container(name: str) -> Document:
    (found,) = pod(name)["spec"]["containers"]
    return dict(found)


def variables(name: str) -> dict[str, str]:
    return dict(of_kind(name, "ConfigMap")["data"])


overlays = pytest.mark.parametrize("name", OVERLAYS)
"""Each of them, and the base by itself."""


@pytest.mark.parametrize("name", BUILT)
def test_every_document_is_one_that_kubernetes_takes(name: str) -> None:
    for version in VERSIONS.get(name, EVERYWHERE):
        for document in BUILT[name]:
            kubernetes_validate.validate(document, version, strict=True)


def test_a_document_that_it_does_not_take_is_refused() -> None:
    deployment = of_kind("base", "Deployment")
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(deployment | {"spec": deployment["spec"] | {"replica": 2}}, "1.33", strict=True)


def in_order(part: Any, name: str = "") -> Any:
    """The same with what is merged by key in the order of its keys, and no hashes."""
    if isinstance(part, dict):
        return {key: in_order(value, key) for key, value in part.items()}
    if isinstance(part, list):
        items = [in_order(item) for item in part]
        return sorted(items, key=lambda item: str(item[MERGE_KEYS[name]])) if name in MERGE_KEYS else items
    return re.sub(r"^(vaeserve-settings)-\w{10}$", rf"\1{HASH}", part) if isinstance(part, str) else part


def listed(documents: list[Document]) -> list[Any]:
    return sorted((in_order(document) for document in documents), key=lambda it: (it["kind"], it["metadata"]["name"]))


def has_kustomize() -> bool:
    """Whether there is a kubectl of this decade: older ones, such as Debian 12's, do not know components."""
    if shutil.which("kubectl") is None:
        return False
    said = subprocess.run(["kubectl", "version", "--client"], capture_output=True, text=True, check=False).stdout
    found = re.search(r"Kustomize Version: v(\d+)", said)
    return found is not None and int(found[1]) >= 5


@pytest.mark.skipif(not has_kustomize(), reason="needs a kubectl with kustomize 5")
@pytest.mark.parametrize("name", BUILT)
def test_kustomize_builds_the_same(name: str) -> None:
    done = subprocess.run(["kubectl", "kustomize", FOLDER / name], capture_output=True, text=True, check=True)
    assert done.stderr == ""
    assert listed(list(yaml.safe_load_all(done.stdout))) == listed(BUILT[name])


@overlays
def test_selectors_find_the_pods(name: str) -> None:
    labels = pod(name)["metadata"]["labels"].items()
    spec = of_kind(name, "Deployment")["spec"]
    selectors = [
        spec["selector"]["matchLabels"],
        of_kind(name, "Service")["spec"]["selector"],
        of_kind(name, "PodDisruptionBudget")["spec"]["selector"]["matchLabels"],
        of_kind(name, "NetworkPolicy")["spec"]["podSelector"]["matchLabels"],
        *(it["labelSelector"]["matchLabels"] for it in pod(name)["spec"]["topologySpreadConstraints"]),
    ]
    for selector in selectors:
        assert selector
        assert selector.items() <= labels


@overlays
def test_what_is_named_is_there(name: str) -> None:
    names = {(it["kind"], it["metadata"]["name"]) for it in BUILT[name]}
    target = of_kind(name, "HorizontalPodAutoscaler")["spec"]["scaleTargetRef"]
    assert (target["kind"], target["name"]) in names
    assert ("ServiceAccount", pod(name)["spec"]["serviceAccountName"]) in names
    (source,) = container(name)["envFrom"]
    assert ("ConfigMap", source["configMapRef"]["name"]) in names
    volumes = {it["name"]: it for it in pod(name)["spec"]["volumes"]}
    containers = [container(name), *pod(name)["spec"].get("initContainers", ())]
    assert {mount["name"] for it in containers for mount in it["volumeMounts"]} == set(volumes)
    claims = [it["persistentVolumeClaim"] for it in volumes.values() if "persistentVolumeClaim" in it]
    assert all(("PersistentVolumeClaim", claim["claimName"]) in names for claim in claims)


@overlays
def test_ports_are_the_servers(name: str) -> None:
    (port,) = container(name)["ports"]
    dockerfile = (ROOT / "Dockerfile").read_text()
    assert f"EXPOSE {port['containerPort']}" in dockerfile
    assert f"VAE_PORT={port['containerPort']}" in dockerfile
    assert "VAE_HOST=0.0.0.0" in dockerfile
    assert not {"VAE_HOST", "VAE_PORT"} & variables(name).keys()
    (published,) = of_kind(name, "Service")["spec"]["ports"]
    (admitted,) = of_kind(name, "NetworkPolicy")["spec"]["ingress"]
    assert published["targetPort"] == port["name"]
    assert [it["port"] for it in admitted["ports"]] == [port["name"]]
    assert pod(name)["metadata"]["annotations"]["prometheus.io/port"] == str(port["containerPort"])


@overlays
def test_probes_and_the_scrape_ask_for_what_answers(client: TestClient, name: str) -> None:
    probes = {it: container(name)[f"{it}Probe"]["httpGet"] for it in ("startup", "readiness", "liveness")}
    assert probes["readiness"]["path"] == "/health/ready"
    assert probes["liveness"]["path"] == "/health/live"
    paths = {it["path"] for it in probes.values()} | {pod(name)["metadata"]["annotations"]["prometheus.io/path"]}
    for path in paths:
        assert client.get(path).status_code == 200, path
    assert {it["port"] for it in probes.values()} == {container(name)["ports"][0]["name"]}


@overlays
def test_every_variable_is_a_setting_with_a_value_that_it_takes(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    given = {variable: value for variable, value in variables(name).items() if not variable.startswith("OTEL_")}
    assert given.keys() <= SETTINGS
    for variable, value in given.items():
        monkeypatch.setenv(variable, value)
    assert Settings()


@overlays
def test_accepted_requests_have_the_time_that_they_are_promised(name: str) -> None:
    pause = container(name)["lifecycle"]["preStop"]["sleep"]["seconds"]
    requests = int(variables(name)["VAE_SHUTDOWN_SECONDS"])
    assert pod(name)["spec"]["terminationGracePeriodSeconds"] >= pause + requests + 5


@overlays
def test_pods_may_do_nothing_that_they_need_not(name: str) -> None:
    spec = pod(name)["spec"]
    assert spec["automountServiceAccountToken"] is False
    assert of_kind(name, "ServiceAccount")["automountServiceAccountToken"] is False
    user = re.search(r"^USER (\d+):(\d+)$", (ROOT / "Dockerfile").read_text(), re.MULTILINE)
    assert user is not None
    context = spec["securityContext"]
    assert (context["runAsUser"], context["runAsGroup"]) == (int(user[1]), int(user[2]))
    assert context["runAsNonRoot"] is True
    assert context["seccompProfile"] == {"type": "RuntimeDefault"}
    for it in (container(name), *spec.get("initContainers", ())):
        assert it["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }
        assert it["resources"]["requests"].keys() == {"cpu", "memory"}
        assert it["resources"]["limits"].keys() >= {"cpu", "memory"}
    assert name == "overlays/tracing" or of_kind(name, "NetworkPolicy")["spec"]["egress"] == []


@overlays
def test_the_autoscaler_looks_at_a_metric_that_there_is(client: TestClient, name: str) -> None:
    spec = of_kind(name, "HorizontalPodAutoscaler")["spec"]
    asked = [it["pods"]["metric"]["name"] for it in spec["metrics"] if it["type"] == "Pods"]
    (rule,) = yaml.safe_load((FOLDER / "prometheus-adapter.yaml").read_text())["rules"]["custom"]
    assert asked == [rule["name"]["as"]] == ["vae_queue_rows"]
    assert rule["seriesQuery"].startswith("vae_queue_rows{")
    assert "\nvae_queue_rows " in client.get("/metrics").text
    assert 2 <= spec["minReplicas"] < spec["maxReplicas"]
    assert "replicas" not in of_kind(name, "Deployment")["spec"]


def test_models_come_from_where_the_server_looks() -> None:
    for name in ("volume", "image", "init"):
        overlay = f"overlays/{name}"
        places = {mount["mountPath"] for mount in container(overlay)["volumeMounts"] if mount.get("readOnly")}
        assert places == {variables(overlay)["VAE_MODELS_DIR"]}


def test_keys_lie_where_the_server_looks() -> None:
    keys = Path(variables("overlays/cpu")["VAE_KEYS_FILE"])
    assert str(keys.parent) in {mount["mountPath"] for mount in container("overlays/cpu")["volumeMounts"]}


def test_a_traced_server_may_call_its_collector_and_nobody_else() -> None:
    endpoint = urlsplit(variables("overlays/tracing")["OTEL_EXPORTER_OTLP_ENDPOINT"])
    collector, names = of_kind("overlays/tracing", "NetworkPolicy")["spec"]["egress"]
    assert [it["port"] for it in collector["ports"]] == [endpoint.port]
    assert {it["port"] for it in names["ports"]} == {53}
    assert all(it["to"] for it in (collector, names))  # without, it would be everyone
    assert f"-t {container('overlays/tracing')['image']} -f" in (ROOT / "deploy/tracing/Dockerfile").read_text()


def test_a_gpu_is_asked_for_and_insisted_on() -> None:
    assert container("overlays/gpu")["resources"]["limits"]["nvidia.com/gpu"] == "1"
    assert variables("overlays/gpu")["VAE_EXECUTION_PROVIDER"] == "cuda"
    assert container("overlays/gpu")["image"] == "vaeserve:gpu"


def test_the_nodes_of_a_training_find_one_another() -> None:
    job, service = of_kind("training", "Job"), of_kind("training", "Service")
    spec = job["spec"]["template"]["spec"]
    (training,) = spec["containers"]
    options = dict(it.removeprefix("--").split("=") for it in training["args"] if "=" in it)
    assert int(options["nnodes"]) == job["spec"]["completions"] == job["spec"]["parallelism"]
    name, (port,) = service["metadata"]["name"], service["spec"]["ports"]
    assert options["rdzv-endpoint"] == f"{job['metadata']['name']}-0.{name}:{port['port']}"
    assert spec["subdomain"] == name
    assert service["spec"]["selector"].items() <= job["spec"]["template"]["metadata"]["labels"].items()


def test_a_trainings_command_is_one() -> None:
    (training,) = of_kind("training", "Job")["spec"]["template"]["spec"]["containers"]
    command = [it for it in training["args"] if not it.startswith(("--nn", "--npr", "--max-r", "--rdzv"))]
    assert command[:4] == ["-m", "training", "train", "mnist"]
    assert load_recipe(command[3]).name == "mnist"
    offered = subprocess.run(
        [sys.executable, "-m", "training", "train", "--help"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "COLUMNS": "200"},
    ).stdout
    assert all(option.partition("=")[0] in offered for option in command[4:])


def test_a_trainings_image_gets_what_it_copies() -> None:
    folder = FOLDER / "training"
    dockerfile = (folder / "Dockerfile").read_text()
    copied = {path for line in re.findall(r"^COPY (.+) \S+$", dockerfile, re.MULTILINE) for path in line.split()}
    admitted = re.findall(r"^!(.+)$", (folder / "Dockerfile.dockerignore").read_text(), re.MULTILINE)
    assert copied == set(admitted)
    assert all((ROOT / path).exists() for path in copied)
    assert 'ENTRYPOINT ["torchrun"]' in dockerfile
