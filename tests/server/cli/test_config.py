"""`sailplane config` prints a file that says the same again, and hides secrets."""

import re
import tomllib
from pathlib import Path

from server.settings import Settings, read_settings


def test_it_prints_every_value_with_its_source(run, monkeypatch):
    monkeypatch.setenv("SAILPLANE_TOP_K", "3")
    Path("sailplane.toml").write_text('adapter_roots = ["/srv/a"]\n')
    result = run("config", "--port", "99", "--log-text")
    lines = re.sub(" +", " ", result.stdout).splitlines()
    assert {
        "port = 99 # command line",
        "log_text = true # command line",
        "top_k = 3 # environment",
        'adapter_roots = ["/srv/a"] # sailplane.toml',
        'host = "127.0.0.1" # default',
    } <= set(lines)
    assert len(lines) == len(Settings.model_fields)


def test_what_it_prints_is_a_file_of_settings(run, tmp_path):
    given = ["--port", "99", "--adapter-root", "/a", "--adapter-root", "/b", "--host", 'a"b']
    printed = run("config", *given).stdout
    assert tomllib.loads(printed)["adapter_roots"] == ["/a", "/b"]
    path = tmp_path / "again.toml"
    path.write_text(printed)
    again = read_settings(config=path).settings
    assert (again.port, again.host) == (99, 'a"b')


def test_a_secret_is_never_shown(run, monkeypatch):
    monkeypatch.setenv("SAILPLANE_OPENAI_API_KEY", "sk-hidden")
    output = run("config").output
    assert "sk-hidden" not in output
    assert "# openai_api_key is set and not shown" in output


def test_bad_values_end_with_2_and_say_which(run):
    result = run("config", "--port", "abc")
    assert result.exit_code == 2
    assert "port = 'abc' (from command line): expected a valid integer" in result.output


def test_a_missing_file_ends_with_2(run):
    result = run("config", "--config", "missing.toml")
    assert result.exit_code == 2
    assert "missing.toml" in result.output
