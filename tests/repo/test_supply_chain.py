"""Bills of materials, licences, and the audit for known vulnerabilities."""

import json
import re
import runpy
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.metadata import metadata, version
from pathlib import Path
from typing import Any

import pytest
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator
from packaging.utils import canonicalize_name

from app import __version__
from tests.conftest import ROOT, free_port
from tests.processes import PATIENCE

VARIANTS = {"sbom.cdx.json": "requirements.lock", "sbom-gpu.cdx.json": "requirements-gpu.lock"}
SBOM = runpy.run_path(str(ROOT / "scripts/sbom"), run_name="sbom")


def document(name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((ROOT / name).read_text())
    return found


def run(script: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, ROOT / "scripts" / script, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE, check=False)


@pytest.mark.parametrize("name", VARIANTS)
def test_a_bill_is_valid_cyclonedx(name: str) -> None:
    validator = JsonStrictValidator(SchemaVersion.V1_6)
    text = (ROOT / name).read_text()
    assert validator.validate_str(text) is None
    assert validator.validate_str(text.replace('"components"', '"parts"')) is not None


@pytest.mark.parametrize("name", VARIANTS)
def test_a_bill_lists_the_server_and_what_its_lock_installs(name: str) -> None:
    bill = document(name)
    assert bill["metadata"]["component"]["version"] == __version__
    listed = {part["purl"] for part in bill["components"]}
    pins = SBOM["pins"]((ROOT / VARIANTS[name]).read_text())
    assert len(pins) > 30
    wanted = {f"pkg:pypi/{pin.replace('==', '@')}" for pin in pins} | {f"pkg:npm/swagger-ui-dist@{swagger()}"}
    assert listed == wanted, "run scripts/sbom"
    (server,) = (entry for entry in bill["dependencies"] if entry["ref"] == bill["metadata"]["component"]["bom-ref"])
    assert set(server["dependsOn"]) == wanted


def swagger() -> str:
    """The version that the vendored file itself names."""
    script = (ROOT / "app/static/swagger-ui/swagger-ui-bundle.js").read_text()
    return re.findall(r'PACKAGE_VERSION:"([\d.]+)"', script)[0]


def test_licences_are_those_that_the_installed_packages_state() -> None:
    parts = [part for part in document("sbom.cdx.json")["components"] if part["purl"].startswith("pkg:pypi/")]
    for part in parts:
        assert version(part["name"]) == part["version"], "the environment is not that of constraints.txt"
        stated = SBOM["licence"](dict(metadata(part["name"]).json))
        assert part["licenses"] == [{"expression": stated}], part["name"]


def test_a_licence_that_is_not_known_stops_the_bill() -> None:
    for stated in ({}, {"license": "ask my cousin"}, {"classifier": ["License :: A", "License :: B"]}):
        with pytest.raises(SystemExit, match="the license of it is not known"):
            SBOM["licence"]({"name": "it", **stated})


def test_every_licence_is_permitted() -> None:
    done = run("licences")
    assert done.returncode == 0, done.stderr
    for name in VARIANTS:
        for part in document(name)["components"]:
            assert f"{part['name']} {part['version']} " in done.stdout


@pytest.mark.parametrize("licences", [[], [{"expression": "GPL-3.0-only"}], [{"expression": "MIT AND AGPL-3.0-only"}]])
def test_another_licence_is_told(licences: list[Any], tmp_path: Path) -> None:
    bill = document("sbom.cdx.json")
    bill["components"].append({"name": "it", "version": "1", "licenses": licences})
    (tmp_path / "sbom.cdx.json").write_text(json.dumps(bill))
    done = run("licences", tmp_path / "sbom.cdx.json")
    assert (done.returncode, done.stderr) == (1, "not permitted, or not stated: it 1\n")


Answer = Callable[[str], tuple[int, dict[str, Any]]]


@pytest.fixture
def database() -> Iterator[Callable[[Answer], str]]:
    """Starts a database of vulnerabilities that answers for each name as it is told; gives its address."""
    servers = []

    def start(answer: Answer) -> str:
        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                status, content = answer(asked["package"]["name"])
                self.send_response(status)
                self.end_headers()
                self.wfile.write(json.dumps(content).encode())

            def log_message(self, *_: object) -> None:
                pass

        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        servers.append(server)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        return f"http://127.0.0.1:{server.server_address[1]}/v1/query"

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


def test_an_audit_that_finds_nothing_looked_everything_up(database: Callable[[Answer], str]) -> None:
    asked = set()
    done = run("audit", database(lambda name: (asked.add(name), (200, {}))[1]))
    assert done.returncode == 0, done
    assert asked == {
        canonicalize_name(pin.partition("==")[0])
        for lock in VARIANTS.values()
        for pin in SBOM["pins"]((ROOT / lock).read_text())
    }


def test_an_audit_that_finds_something_fails(database: Callable[[Answer], str]) -> None:
    affected = [{"package": {"name": "pillow", "ecosystem": "PyPI"}}]
    entry = {"id": "PYSEC-1-1", "summary": "a made-up one", "affected": affected}
    done = run("audit", database(lambda name: (200, {"vulns": [entry]} if name == "pillow" else {})))
    assert done.returncode == 1, done
    assert f"requirements.lock: pillow {version('pillow')} is vulnerable: PYSEC-1-1" in done.stdout


def test_an_audit_without_a_database_says_so_and_does_not_pass(database: Callable[[Answer], str]) -> None:
    refusing = database(lambda name: (503, {}))
    for address in (refusing, f"http://127.0.0.1:{free_port()}/v1/query"):
        done = run("audit", address)
        assert done.returncode == 3, done
        assert done.stdout.count("NOT AUDITED") == len(VARIANTS)


def test_packages_that_are_not_in_the_database_are_not_passed(tmp_path: Path) -> None:
    """An index without a database answers "not found", and pip-audit then says that nothing is known to be wrong."""
    (tmp_path / "pip_audit").mkdir()
    report = {"dependencies": [{"name": "pillow", "skip_reason": "not found"}]}
    (tmp_path / "pip_audit/__main__.py").write_text(f"print({json.dumps(json.dumps(report))})")
    done = subprocess.run(
        [sys.executable, ROOT / "scripts/audit"],
        env={"PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout.count("NOT AUDITED")) == (3, 2), done
