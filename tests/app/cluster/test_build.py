"""The Ray Serve application: its arguments, and the shipped config file."""

import importlib.util
import os
import warnings
from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import ValidationError

from app.errors import StartupError
from tests.conftest import MODELS, ROOT

if importlib.util.find_spec("ray") is None and "CI" not in os.environ:
    pytest.skip("needs the extra ray", allow_module_level=True)

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # of Ray's own use of other libraries
    from ray.serve import Application
    from ray.serve.schema import ServeDeploySchema

    from app.cluster.build import INGRESS, Arguments, build

CONFIG = yaml.safe_load((ROOT / "deploy/ray/serve.yaml").read_text())


def test_a_directory_of_models_is_an_application() -> None:
    assert isinstance(build(Arguments(models_dir=MODELS)), Application)
    assert isinstance(build(Arguments(models_dir=MODELS, models=["mnist-2d"], default_model="mnist-2d")), Application)


@pytest.mark.parametrize(
    "wrong",
    [
        {"models": ["nope"]},
        {"default_model": "nope"},
        {"models": ["mnist-2d"]},  # without the default one
        {"settings_of": {"nope": {}}},
        {"settings": {"max_rows": 0}},
        {"settings": {"no_such_setting": 1}},
        {"settings_of": {"mnist": {"queue_rows": 0}}},
    ],
)
def test_arguments_that_contradict_the_directory_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(StartupError, match=r"is not among the models|VAE_"):
        build(Arguments(models_dir=MODELS, **wrong))


def test_an_empty_directory_is_refused(tmp_path: Path) -> None:
    with pytest.raises(StartupError, match="there are none"):
        build(Arguments(models_dir=tmp_path))


def test_an_unknown_argument_is_refused() -> None:
    with pytest.raises(ValidationError, match="model_dir"):
        Arguments.model_validate({"model_dir": "models"})


def test_the_config_file_is_rays_and_names_the_shipped_models() -> None:
    (application,) = ServeDeploySchema.model_validate(CONFIG).applications
    assert application.import_path == f"{build.__module__}:{build.__name__}"
    assert build(Arguments.model_validate(application.args))
    held = {path.name for path in MODELS.iterdir()}
    assert {it.name for it in application.deployments} == {*held, INGRESS}


def test_the_config_file_fits_two_processors() -> None:
    (application,) = CONFIG["applications"]
    assert sum(it["ray_actor_options"]["num_cpus"] for it in application["deployments"]) <= 2
