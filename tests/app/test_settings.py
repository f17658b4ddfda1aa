"""Settings from the environment, and the CPUs that a container really has."""

from pathlib import Path

import pytest
from pydantic import ValidationError

from app.errors import StartupError
from app.settings import Settings, _cgroup_quota, available_cpus, read_settings, unknown_variables


def test_settings_come_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VAE_PORT", "9000")
    monkeypatch.setenv("VAE_MODELS_DIR", "/srv/models")
    settings = read_settings()
    assert (settings.port, settings.models_dir) == (9000, Path("/srv/models"))
    assert settings.host == "127.0.0.1"
    assert read_settings(port=1).port == 1


@pytest.mark.parametrize(
    ("name", "value"),
    [("VAE_PORT", "x"), ("VAE_PORT", "70000"), ("VAE_EXECUTION_PROVIDER", "tpu"), ("VAE_WORKERS", "0")],
)
def test_a_wrong_value_is_named(monkeypatch: pytest.MonkeyPatch, name: str, value: str) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(StartupError, match=f"^{name}: "):
        read_settings()


@pytest.mark.parametrize(
    "key", ["short", "fifteen-letters", "with a space in it", "a-key-and-a-newline\n", "schlüssel-des-hauses"]
)
def test_a_key_is_long_and_fits_into_a_header(monkeypatch: pytest.MonkeyPatch, key: str) -> None:
    monkeypatch.setenv("VAE_ADMIN_KEY", key)
    with pytest.raises(StartupError, match=r"^VAE_ADMIN_KEY: .* 16 characters or more") as refused:
        read_settings()
    assert key not in str(refused.value)


def test_an_empty_key_is_none_and_another_is_not_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    assert read_settings().admin_key is None
    monkeypatch.setenv("VAE_ADMIN_KEY", "")
    assert read_settings().admin_key is None
    monkeypatch.setenv("VAE_ADMIN_KEY", "a-key-of-16-chars")
    settings = read_settings()
    assert settings.admin_key is not None
    assert settings.admin_key.get_secret_value() == "a-key-of-16-chars"
    assert "a-key" not in repr(settings)


def test_an_empty_path_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("KEYS_FILE", "TLS_CERTIFICATE", "TLS_KEY"):
        monkeypatch.setenv(f"VAE_{name}", "")
    settings = read_settings()
    assert (settings.keys_file, settings.tls_certificate, settings.tls_key) == (None, None, None)
    assert not settings.asks_for_keys
    assert not settings.has_management


def test_models_are_named_with_commas_between_them() -> None:
    assert Settings(models=" mnist, mnist-2d,").chosen_models == {"mnist", "mnist-2d"}
    assert Settings().chosen_models == frozenset()


def test_misspelt_variables_are_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VAE_PROT", "9000")
    for name in ("VAE_DATA_DIR", "VAE_URL", "VAE_API_KEY"):
        monkeypatch.setenv(name, "read by another program")
    assert unknown_variables() == ["VAE_PROT"]


def test_slots_times_threads_stay_within_the_cpus() -> None:
    cpus = available_cpus()
    assert Settings().slot_count == cpus
    assert Settings(threads=cpus).slot_count == 1
    assert Settings(threads=10 * cpus).slot_count == 1
    assert Settings(workers=cpus).slot_count == 1
    assert Settings(slots=3).slot_count == 3


def test_an_image_in_one_piece_takes_an_eighth_of_the_memory_at_most(monkeypatch: pytest.MonkeyPatch) -> None:
    for limit, expected in ((None, 2**30), (2**33, 2**30 // 6)):
        monkeypatch.setattr("app.settings.memory_limit", lambda limit=limit: limit)
        assert Settings(workers=3, slots=2).run_bytes == expected
        assert Settings(whole_bytes=5).run_bytes == 5


def test_cgroup_quota(tmp_path: Path) -> None:
    assert _cgroup_quota(tmp_path) is None
    (tmp_path / "cpu").mkdir()
    (tmp_path / "cpu/cpu.cfs_quota_us").write_text("150000\n")
    (tmp_path / "cpu/cpu.cfs_period_us").write_text("100000\n")
    assert _cgroup_quota(tmp_path) == 1.5
    (tmp_path / "cpu.max").write_text("200000 100000\n")
    assert _cgroup_quota(tmp_path) == 2.0
    (tmp_path / "cpu.max").write_text("max 100000\n")
    assert _cgroup_quota(tmp_path) is None


@pytest.mark.parametrize(("given", "meant"), [("/vae/", "/vae"), ("/", ""), ("", ""), ("/a/b", "/a/b")])
def test_a_path_prefix_does_not_end_with_a_slash(given: str, meant: str) -> None:
    assert Settings(root_path=given).root_path == meant


@pytest.mark.parametrize("given", ["vae", "/a b", "/a?b", "http://x"])
def test_a_malformed_path_prefix_is_refused(given: str) -> None:
    with pytest.raises(ValidationError):
        Settings(root_path=given)
