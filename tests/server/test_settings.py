"""Where settings come from, which source wins, and what is said of a bad value."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from server.settings import Settings, SettingsError, read_settings


@pytest.fixture(autouse=True)
def _clean_surroundings(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for key in [k for k in os.environ if k.startswith("SAILPLANE_")]:
        monkeypatch.delenv(key)
    monkeypatch.chdir(tmp_path)


def write(path: Path, text: str) -> Path:
    path.write_text(text)
    return path


def test_defaults_need_no_source():
    origins = read_settings()
    assert origins.settings.port == 8080
    assert set(origins.of) == set(Settings.model_fields)
    assert set(origins.of.values()) == {"default"}


def test_each_source_beats_the_weaker_ones(monkeypatch, tmp_path):
    write(tmp_path / "sailplane.toml", 'port = 1001\nhost = "0.0.0.0"\ntop_k = 5\n')
    monkeypatch.setenv("SAILPLANE_PORT", "1002")
    monkeypatch.setenv("SAILPLANE_TOP_K", "6")
    origins = read_settings({"port": "1003"})
    settings = origins.settings
    assert (settings.port, settings.top_k, settings.host) == (1003, 6, "0.0.0.0")
    assert [origins.of[k] for k in ("port", "top_k", "host", "router")] == [
        "command line", "environment", "sailplane.toml", "default",
    ]  # fmt: skip


def test_the_file_is_named_by_option_then_variable_then_place(monkeypatch, tmp_path):
    write(tmp_path / "sailplane.toml", "port = 1")
    assert read_settings().settings.port == 1
    monkeypatch.setenv("SAILPLANE_CONFIG", str(write(tmp_path / "b.toml", "port = 2")))
    assert read_settings().settings.port == 2
    assert read_settings(config=write(tmp_path / "c.toml", "port = 3")).settings.port == 3


def test_paths_in_the_environment_are_separated_like_path(monkeypatch):
    monkeypatch.setenv("SAILPLANE_ADAPTER_ROOTS", os.pathsep.join(["/srv/a", "/srv/b"]))
    assert read_settings().settings.adapter_roots == (Path("/srv/a"), Path("/srv/b"))


def test_names_are_separated_by_commas_wherever_they_stand(monkeypatch):
    monkeypatch.setenv("SAILPLANE_PIN", "mood, quiz")
    settings = read_settings({"preload": ["mood,weather", "quiz"]}).settings
    assert settings.pin == ("mood", "quiz")
    assert settings.preload == ("mood", "weather", "quiz")


@pytest.mark.parametrize(
    ("key", "value", "expectation"),
    [
        ("port", "abc", "valid integer"),
        ("port", "65536", "less than or equal to 65535"),
        ("top_k", "-1", "greater than or equal to 1"),
        ("max_wait_ms", "nan", "finite"),
        ("drain_seconds", "inf", "finite"),
        ("writer", "magic", "'template', 'openai' or 'local'"),
        ("openai_base_url", "ftp://x", "http:// or https://"),
        ("log_text", "maybe", "valid boolean"),
    ],
)
def test_a_bad_value_is_told_with_key_value_source_and_expectation(
    monkeypatch, key, value, expectation
):
    monkeypatch.setenv(f"SAILPLANE_{key.upper()}", value)
    with pytest.raises(SettingsError) as caught:
        read_settings()
    message = str(caught.value)
    assert message.startswith(f"{key} = {value!r} (from environment): expected ")
    assert expectation in message


def test_all_bad_values_are_told_at_once():
    with pytest.raises(SettingsError) as caught:
        read_settings({"port": "x", "max_queue": "0"})
    assert [line.split(" = ")[0] for line in str(caught.value).splitlines()] == [
        "port", "max_queue",
    ]  # fmt: skip


def test_a_bad_secret_is_not_told(tmp_path):
    path = write(tmp_path / "x.toml", "openai_api_key = 12345")
    with pytest.raises(SettingsError) as caught:
        read_settings(config=path)
    assert "12345" not in str(caught.value)


@pytest.mark.parametrize("source", ["environment", "file", "options"])
def test_an_unknown_key_is_an_error_that_names_the_nearest(source, monkeypatch, tmp_path):
    options = {"prot": "1"} if source == "options" else {}
    if source == "environment":
        monkeypatch.setenv("SAILPLANE_PROT", "1")
    if source == "file":
        write(tmp_path / "sailplane.toml", "prot = 1")
    with pytest.raises(SettingsError, match=r"prot .*no such setting; did you mean port\?"):
        read_settings(options)


@pytest.mark.parametrize("text", ["port = ", "port 1"])
def test_a_broken_file_is_told(text, tmp_path):
    with pytest.raises(SettingsError, match="expected a valid TOML file"):
        read_settings(config=write(tmp_path / "x.toml", text))


def test_a_named_file_that_is_missing_is_told(tmp_path):
    with pytest.raises(SettingsError, match="expected a TOML file that exists"):
        read_settings(config=tmp_path / "missing.toml")


def test_settings_are_frozen():
    with pytest.raises(ValueError, match="frozen"):
        read_settings().settings.port = 1


def test_importing_reads_nothing():
    code = "import server.settings"
    bad = {**os.environ, "SAILPLANE_PORT": "abc", "SAILPLANE_CONFIG": "missing.toml"}
    root = Path(__file__).parents[2]
    subprocess.run([sys.executable, "-c", code], env=bad, cwd=root, check=True)


def test_the_collector_is_found_by_opentelemetrys_own_variable_too(monkeypatch):
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://collector:4318/")
    found = read_settings()
    assert found.settings.otlp_endpoint == "http://collector:4318"
    assert found.of["otlp_endpoint"] == "environment"
    monkeypatch.setenv("SAILPLANE_OTLP_ENDPOINT", "http://ours:4318")
    assert read_settings().settings.otlp_endpoint == "http://ours:4318"
    monkeypatch.setenv("SAILPLANE_OTLP_ENDPOINT", "ours:4318")
    with pytest.raises(SettingsError, match=r"otlp_endpoint = .*expected an http"):
        read_settings()
