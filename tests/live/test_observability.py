"""docs/observability.md, the alerts and the dashboard: what they name is there, and promtool is content with them."""

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest
import yaml

from tests import pages
from tests.conftest import MODELS, ROOT, servers
from tests.processes import PATIENCE
from tests.repo.test_docs import rows

PAGE = (ROOT / "docs/observability.md").read_text()
PROMETHEUS, GRAFANA = ROOT / "deploy/prometheus", ROOT / "deploy/grafana"
RULES = yaml.safe_load((PROMETHEUS / "alerts.yml").read_text())["groups"][0]["rules"]
DASHBOARD = json.loads((GRAFANA / "dashboards/vaeserve.json").read_text())
PANELS = [panel for panel in DASHBOARD["panels"] if panel["type"] != "row"]

Labels = dict[str, set[str]]
"""The labels of each sample's name."""


@pytest.fixture(scope="module")
def client() -> Iterator[httpx2.Client]:
    """Of a live server that has seen something of everything."""
    with servers() as start:
        _, client = start(models_dir=MODELS, log_level="error", queue_rows=100)
        client.get("/sample?n=2")
        client.get("/reconstruct")
        client.post("/score/npy?k=2", content=b"")
        client.get("/sample?n=200")
        latents = client.get("/sample?n=2").json()["latents"]
        assert client.post("/interpolate", json={"points": [{"latent": latents[0]}, {"label": 1}]}).status_code == 200
        images = client.get("/sample?n=1").json()["images"]
        assert client.post("/encode", json={"images": images}).status_code == 200
        yield client


@pytest.fixture(scope="module")
def exposed(client: httpx2.Client) -> tuple[str, Labels]:
    """The text, and what is in it."""
    text = client.get("/metrics").text
    found: Labels = {}
    for name, labels in re.findall(r"^([a-z_]+)(?:{(.*)})? \S+$", text, re.MULTILINE):
        found.setdefault(name, set()).update(re.findall(r'(\w+)="', labels))
    return text, found


def test_every_metric_is_documented_as_it_is(exposed: tuple[str, Labels]) -> None:
    text, samples = exposed
    types = dict(re.findall(r"^# TYPE (\S+) (\S+)$", text, re.MULTILINE))
    documented = {name.strip("`"): (kind, labels) for name, kind, labels, _ in rows(PAGE, "Metrics")[2:]}
    assert {name: kind for name, (kind, _) in documented.items()} == types
    for name, (kind, labels) in documented.items():
        sample = f"{name}_count" if kind == "histogram" else name
        assert set(re.findall(r"`(\w+)`", labels)) - {"pid"} == samples[sample] - {"le"}, name


def selectors(query: str) -> list[tuple[str, set[str]]]:
    """Every metric of a query in PromQL, and the labels that it is chosen by."""
    text = re.sub(r'"[^"]*"', '""', query)
    text = re.sub(r"\[[^\]]*\]", "", text)
    text = re.sub(r"\b(?:by|on|group_left|group_right|without|ignoring)\s*\([^)]*\)", "", text)
    found = re.findall(r"\b([a-zA-Z_:][\w:]*)\b(?!\s*\()(?:{([^}]*)})?", text)
    names = [(name, set(re.findall(r"(\w+)\s*(?:=~|!~|!=|=)", labels))) for name, labels in found]
    inside = {label for _, labels in names for label in labels}
    keywords = {"or", "and", "unless", "bool", "offset"}
    return [(name, labels) for name, labels in names if name not in keywords | inside]


def queries() -> Iterator[str]:
    """Of all rules and panels, and of the dashboard's choices."""
    yield from (rule["expr"] for rule in RULES)
    yield from (target["expr"] for panel in PANELS for target in panel["targets"])
    for variable in DASHBOARD["templating"]["list"][1:]:
        yield re.sub(r"label_values\((\w+), (\w+)\)", r'\1{\2=""}', variable["query"])


def test_queries_are_taken_apart() -> None:
    query = 'sum by (le) (rate(vae_a_bucket{x="y", z!~"a{b}"}[5m])) / on (job) group_left () vae_b > 2 or up == 0'
    assert selectors(query) == [("vae_a_bucket", {"x", "z"}), ("vae_b", set()), ("up", set())]


@pytest.mark.parametrize("query", sorted(set(queries())))
def test_what_rules_and_dashboard_name_is_exposed(query: str, exposed: tuple[str, Labels]) -> None:
    _, samples = exposed
    found = selectors(query)
    assert found
    for name, labels in found:
        assert name == "up" or name in samples, name
        assert labels - {"job", "instance", "pid"} <= samples.get(name, set()), name


def test_every_metric_that_is_documented_is_looked_at_but_for_a_few() -> None:
    named = {re.sub(r"_(bucket|sum|count)$", "", name) for query in queries() for name, _ in selectors(query)}
    documented = {row[0].strip("`") for row in rows(PAGE, "Metrics")[2:]}
    assert documented - named == {"process_virtual_memory_bytes"}


def test_every_alert_says_what_to_do() -> None:
    headings = dict(re.findall(r"^### (Vaeserve\w+)\n\n(.+)$", PAGE, re.MULTILINE))
    assert list(headings) == [rule["alert"] for rule in RULES]
    tests = (PROMETHEUS / "alerts_test.yml").read_text()
    for rule in RULES:
        assert rule["labels"]["severity"] in ("critical", "warning")
        assert {"summary", "description", "runbook"} == rule["annotations"].keys()
        assert rule["annotations"]["runbook"] == f"docs/observability.md#{rule['alert'].lower()}"
        assert rule["alert"] in tests, "no test fires it"


def promtool(*arguments: str, **options: Any) -> "subprocess.CompletedProcess[str]":
    """Prometheus's own checks; without it these tests are skipped, but not in CI."""
    path = shutil.which("promtool")
    if path is None:
        missing = "install promtool (apt-get install prometheus)"
        pytest.fail(missing) if os.environ.get("CI") else pytest.skip(missing)
    return subprocess.run(
        [path, *arguments], cwd=PROMETHEUS, capture_output=True, text=True, check=False, timeout=PATIENCE, **options
    )


@pytest.mark.parametrize(
    "arguments",
    [("check", "config", "prometheus.yml"), ("check", "rules", "alerts.yml"), ("test", "rules", "alerts_test.yml")],
    ids=lambda arguments: " ".join(arguments[:2]),
)
def test_promtool_is_content(arguments: tuple[str, ...]) -> None:
    done = promtool(*arguments)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "SUCCESS" in done.stdout


def test_promtool_is_content_with_what_the_server_exposes(exposed: tuple[str, Labels]) -> None:
    done = promtool("check", "metrics", input=exposed[0])
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_the_alerts_notice_what_they_are_there_for(tmp_path: Path) -> None:
    shutil.copytree(PROMETHEUS, tmp_path / "prometheus")
    path = tmp_path / "prometheus/alerts.yml"
    for rule in RULES:
        text = (PROMETHEUS / "alerts.yml").read_text()
        path.write_text(text.replace(f"- alert: {rule['alert']}\n", f"- alert: {rule['alert']}Renamed\n"))
        done = promtool("test", "rules", str(tmp_path / "prometheus/alerts_test.yml"))
        assert done.returncode != 0, rule["alert"]


def test_prometheus_scrapes_the_server_of_compose_and_reads_the_alerts() -> None:
    configuration = yaml.safe_load((PROMETHEUS / "prometheus.yml").read_text())
    (job,) = configuration["scrape_configs"]
    assert job["job_name"] == "vaeserve"
    assert job["static_configs"] == [{"targets": ["vaeserve:8000"]}]
    assert configuration["rule_files"] == ["alerts.yml"]


def test_a_key_for_prometheus_is_as_the_comment_shows(tmp_path: Path) -> None:
    text = (PROMETHEUS / "prometheus.yml").read_text()
    key = tmp_path / "key"
    key.write_text("a-key-of-16-chars")
    keyed = text.replace("# authorization:", "authorization:")
    keyed = keyed.replace("#   credentials_file: /run/secrets/vaeserve_metrics_key", f"  credentials_file: {key}")
    configuration = yaml.safe_load(keyed)
    assert configuration["scrape_configs"][0]["authorization"] == {"credentials_file": str(key)}
    (tmp_path / "prometheus.yml").write_text(keyed.replace("[alerts.yml]", f"['{PROMETHEUS}/alerts.yml']"))
    done = promtool("check", "config", str(tmp_path / "prometheus.yml"))
    assert done.returncode == 0, done.stdout + done.stderr


def test_prometheus_asks_over_tls_as_the_comment_shows(tmp_path: Path) -> None:
    text = (PROMETHEUS / "prometheus.yml").read_text()
    secure = text.replace("# scheme:", "scheme:").replace("# tls_config:", "tls_config:")
    (job,) = yaml.safe_load(secure)["scrape_configs"]
    assert (job["scheme"], list(job["tls_config"])) == ("https", ["server_name"])
    (tmp_path / "prometheus.yml").write_text(secure.replace("[alerts.yml]", "[]"))
    done = promtool("check", "config", str(tmp_path / "prometheus.yml"))
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_job_for_kubernetes_finds_the_pods_and_brings_a_key(tmp_path: Path) -> None:
    (text,) = pages.blocks(PAGE, "yaml")
    (job,) = yaml.safe_load(text)["scrape_configs"]
    template = yaml.safe_load((ROOT / "deploy/kubernetes/base/deployment.yaml").read_text())["spec"]["template"]
    ((port,),) = (container["ports"] for container in template["spec"]["containers"])
    name = template["metadata"]["labels"]["app.kubernetes.io/name"]
    assert job["relabel_configs"][0]["regex"] == f"{name};{port['name']}"
    adapter = yaml.safe_load((ROOT / "deploy/kubernetes/prometheus-adapter.yaml").read_text())
    wanted = adapter["rules"]["custom"][0]["resources"]["overrides"].keys()
    assert wanted <= {rule.get("target_label") for rule in job["relabel_configs"]}
    key = tmp_path / "key"
    key.write_text("a-key-of-16-chars")
    assert job.pop("kubernetes_sd_configs") == [{"role": "pod"}]  # Debian's promtool is built without it
    job["authorization"]["credentials_file"] = str(key)
    (tmp_path / "prometheus.yml").write_text(yaml.safe_dump({"scrape_configs": [job]}))
    done = promtool("check", "config", str(tmp_path / "prometheus.yml"))
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_dashboard_is_that_of_the_panels() -> None:
    done = subprocess.run([sys.executable, ROOT / "scripts/dashboard", "--check"], capture_output=True, check=False)
    assert (done.returncode, done.stderr) == (0, b"")


def test_the_dashboard_is_laid_out_without_gaps_or_overlaps() -> None:
    taken: set[tuple[int, int]] = set()
    for panel in DASHBOARD["panels"]:
        place = panel["gridPos"]
        cells = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert max(x for x, _ in cells) < 24
        assert not cells & taken
        taken |= cells
    assert len({panel["id"] for panel in DASHBOARD["panels"]}) == len(DASHBOARD["panels"])
    assert {target["refId"] for panel in PANELS for target in panel["targets"]} <= set("ABCD")


def test_grafana_finds_prometheus_and_the_dashboard() -> None:
    (source,) = yaml.safe_load((GRAFANA / "provisioning/datasources/prometheus.yml").read_text())["datasources"]
    assert (source["type"], source["isDefault"]) == ("prometheus", True)
    (provider,) = yaml.safe_load((GRAFANA / "provisioning/dashboards/vaeserve.yml").read_text())["providers"]
    assert provider["options"]["path"] == "/etc/grafana/dashboards"


def test_the_log_line_that_is_shown_has_the_fields_that_are_told_of() -> None:
    (shown,) = map(json.loads, pages.blocks(PAGE, "json"))
    told = [name for row in rows(PAGE, "Log")[2:] for name in re.findall(r"`(\w+)`", row[0])]
    assert [name for name in told if name not in ("exception", "problem", "untold")] == list(shown)


def test_the_commands_work(client: httpx2.Client) -> None:
    asking, tracing = pages.blocks(PAGE, "sh")
    for command in pages.commands(asking):
        subprocess.run(["bash", "-c", pages.aimed(command, client)], check=True, capture_output=True)
    install, serve = pages.commands(tracing)
    text = (ROOT / "pyproject.toml").read_text()
    for extra in re.findall(r"\[([\w,]+)\]", install)[0].split(","):
        assert re.search(rf"^{extra} = \[", text, flags=re.MULTILINE)
    variable, program, argument = shlex.split(serve)
    assert variable.startswith("OTEL_EXPORTER_OTLP_ENDPOINT=")
    shown = subprocess.run(
        [sys.executable, "-m", "app.cli", argument, "--help"], cwd=ROOT, capture_output=True, check=True
    )
    assert program.encode() in shown.stdout
