"""The image's health check, against listeners that answer, refuse and are absent, TLS included."""

import shutil
import ssl
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "docker" / "healthcheck.py"


@contextmanager
def answering(status: int, context: ssl.SSLContext | None = None) -> Iterator[int]:
    """A port where /health has this status."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status if self.path == "/health" else 404)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        if context:
            server.socket = context.wrap_socket(server.socket, server_side=True)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server.server_port
        server.shutdown()


def check(port: int, **env: str) -> subprocess.CompletedProcess[str]:
    given = {"SAILPLANE_PORT": str(port), "http_proxy": "http://127.0.0.1:1", **env}
    return subprocess.run([sys.executable, SCRIPT], env=given, capture_output=True, text=True)


def test_a_server_that_is_alive_is_healthy():
    with answering(200) as port:
        assert check(port).returncode == 0


def test_one_that_says_it_is_dead_is_not():
    with answering(503) as port:
        told = check(port)
    assert (told.returncode, "503" in told.stderr) == (1, True)


def test_none_is_not():
    with answering(200) as port:
        pass
    told = check(port)
    assert (told.returncode, "refused" in told.stderr) == (1, True)


@pytest.mark.skipif(shutil.which("openssl") is None, reason="openssl makes the certificate")
def test_tls_is_spoken_where_the_server_speaks_it(tmp_path):
    key, certificate = tmp_path / "key.pem", tmp_path / "certificate.pem"
    make = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=public.name"]
    made = subprocess.run([*make, "-keyout", key, "-out", certificate], capture_output=True)
    assert made.returncode == 0, made.stderr
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    with answering(200, context) as port:
        assert check(port, SAILPLANE_TLS_CERTIFICATE=str(certificate)).returncode == 0
