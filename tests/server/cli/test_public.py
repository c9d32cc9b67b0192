"""What a server shows to the world: real processes, with keys, TLS and a port for metrics."""

from __future__ import annotations

import json
import re
import socket
import ssl
import subprocess

import httpx
import pytest

from server.access.keyfile import read_keys, write_keys
from server.access.keys import make_key
from server.cli.public import is_private
from tests.server.cli.test_serve import BODY, serving


@pytest.fixture
def certificate(tmp_path):
    """A certificate of our own for 127.0.0.1, and its key."""
    files = tmp_path / "chain.pem", tmp_path / "key.pem"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "1",
         "-subj", "/CN=127.0.0.1", "-addext", "subjectAltName=IP:127.0.0.1",
         "-out", files[0], "-keyout", files[1]],
        check=True, capture_output=True,
    )  # fmt: skip
    return files


def free_port() -> int:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def test_https_with_keys_an_audit_log_and_metrics_at_a_port_of_their_own(
    library, tmp_path, certificate
):
    key, token = make_key("root", ["infer", "admin"])
    write_keys(tmp_path / "keys.json", [key])
    chain, private = certificate
    scrape = free_port()
    options = [
        "--keys", "keys.json", "--tls-certificate", str(chain), "--tls-key", str(private),
        "--metrics-port", str(scrape), "--audit-log", "audit.jsonl", "--log-level", "error",
    ]  # fmt: skip
    with serving(library, tmp_path, options, scheme="https") as (_, address):
        trusting = ssl.create_default_context(cafile=chain)
        with httpx.Client(verify=trusting, base_url=address) as client:
            assert client.post("/v1/decisions", json=BODY).status_code == 401
            upgrade = {"Connection": "Upgrade", "Upgrade": "websocket"}
            assert client.get("/v1/models", headers=upgrade).status_code == 401
            client.headers["Authorization"] = f"Bearer {token}"
            assert client.post("/v1/decisions", json=BODY).status_code == 200
            assert client.get("/metrics").status_code == 403
            assert client.delete("/v1/experts/mood").status_code == 204
        told = httpx.get(f"http://127.0.0.1:{scrape}/metrics").text
        assert re.search(r'sailplane_key_requests_total{key="root",status="200"} 1.0', told)
    (line,) = map(json.loads, (tmp_path / "audit.jsonl").read_text().splitlines())
    assert (line["key"], line["id"], line["status"]) == ("root", "mood", 204)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--host", "0.0.0.0"], "others can reach this address, and there are no keys"),
        (["--host", "::"], "others can reach this address, and there are no keys"),
        (["--keys", "none.json"], "none.json: No such file"),
        (["--tls-key", "key.pem"], "expected both or neither"),
        (["--tls-key", "no.pem", "--tls-certificate", "no.pem"], "expected a file that exists"),
        (["--audit-log", "nowhere/audit.jsonl"], "expected a file that can be written"),
    ],
)
def test_what_would_be_unsafe_or_cannot_be_read_ends_with_2(run, library, options, message):
    said = run("serve", "--backbone", "tiny-random", "--library", str(library), *options)
    assert said.exit_code == 2
    assert message in " ".join(said.output.split())


def test_a_certificate_that_is_none_is_an_error(run, library, tmp_path):
    (tmp_path / "odd.pem").write_text("no certificate")
    odd = str(tmp_path / "odd.pem")
    said = run(
        "serve", "--backbone", "tiny-random", "--library", str(library),
        "--tls-certificate", odd, "--tls-key", odd,
    )  # fmt: skip
    assert said.exit_code == 2
    assert "expected a certificate and its key" in said.output


@pytest.mark.parametrize(
    ("host", "private"),
    [
        ("127.0.0.1", True), ("localhost", True), ("::1", True), ("127.9.9.9", True),
        ("0.0.0.0", False), ("10.0.0.3", False), ("::", False), ("example.org", False), ("", False),
    ],
)  # fmt: skip
def test_an_address_is_private_if_only_this_machine_reaches_it(host, private):
    assert is_private(host) is private


def test_keys_are_made_listed_and_removed(run, tmp_path):
    file = str(tmp_path / "keys.json")
    limits = ["--requests-per-minute", "60", "--expires", "2999-01-01"]
    tags = ["--tag", "a", "--tag", "public"]
    made = run("keys", "add", "team-a", "--keys", file, *tags, "--permission", "infer", *limits)
    assert made.exit_code == 0
    token = next(line for line in made.output.split() if line.startswith("sp-"))
    (key,) = read_keys(tmp_path / "keys.json")
    assert token not in (tmp_path / "keys.json").read_text()
    assert (key.permissions, key.tags) == ({"infer"}, {"a", "public"})
    assert key.limits.requests_per_minute == 60
    listed = run("keys", "list", "--keys", file).output
    assert "team-a" in listed
    assert "2999-01-01" in listed
    again = run("keys", "add", "team-a", "--keys", file)
    assert again.exit_code == 2
    assert "two keys have the name 'team-a'" in again.output
    assert run("keys", "remove", "nobody", "--keys", file).exit_code == 1
    assert run("keys", "remove", "team-a", "--keys", file).exit_code == 0
    assert read_keys(tmp_path / "keys.json") == ()


def test_keys_need_a_file(run):
    said = run("keys", "list")
    assert said.exit_code == 2
    assert "SAILPLANE_KEYS" in said.output
