"""docs/access.md is true: its commands make keys that a server takes, its headers are what one sees."""

import re
import subprocess
from pathlib import Path

from app.settings import Settings
from tests.app.cli.conftest import shell
from tests.conftest import MODELS, ROOT, Start
from tests.pages import blocks
from tests.processes import PATIENCE

PAGE = (ROOT / "docs/access.md").read_text()


def test_the_keys_of_the_page_open_a_server(start: Start, tmp_path: Path) -> None:
    commands = [line for block in blocks(PAGE, "sh") for line in block.splitlines() if line.startswith("vaeserve key")]
    keys = {line.split()[2]: shell(line, tmp_path).stdout.decode().strip() for line in commands}
    assert set(keys) == {"web", "batch", "operator"}
    process, client = start(models_dir=MODELS / "mnist-2d" / "2", keys_file=tmp_path / "keys", workers=2)
    sent = {name: {"Authorization": f"Bearer {key}"} for name, key in keys.items()}
    assert client.get("/models").status_code == 401
    assert {client.get("/models", headers=headers).status_code for headers in sent.values()} == {200}
    statuses = [client.post("/models/reload", headers=sent[name]).status_code for name in ("web", "operator")]
    assert statuses == [403, 409]  # there are several workers
    (shown,) = blocks(PAGE, "console")
    command, *expected = shown.splitlines()
    script = command.removeprefix("$ ").replace("127.0.0.1:8000", f"127.0.0.1:{client.base_url.port}")
    environment = {"VAE_API_KEY": keys["batch"], "PATH": "/usr/bin:/bin"}
    # Two requests before this one: one of the test's, and the one that curl makes when a window has just ended.
    done = subprocess.run(
        ["bash", "-c", f"sleep 1.1; {script}"], env=environment, capture_output=True, text=True, check=True
    )
    seen = [re.sub(r"r=5\d\d|t=\d+", "n", line) for line in done.stdout.splitlines()]
    assert seen == [re.sub(r"r=5\d\d|t=\d+", "n", line) for line in expected]
    process.terminate()
    _, log = process.communicate(timeout=PATIENCE)
    assert not any(key in log for key in keys.values())


def test_every_setting_of_the_page_is_one() -> None:
    named = set(re.findall(r"VAE_([A-Z_]+)", PAGE))
    assert len(named) > 10
    assert {name.lower() for name in named} <= set(Settings.model_fields)
