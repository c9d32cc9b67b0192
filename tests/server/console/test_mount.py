"""The page is there where its library is, and forbids all that is not the server's own."""

from __future__ import annotations

import importlib.util
import sys

import httpx
import pytest
from fastapi import FastAPI

from server.cli.public import mount_console
from tests.server.console.servers import serving

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("nicegui") is None, reason="nicegui is not installed"
)


def test_without_its_library_there_is_no_page_and_no_error(monkeypatch):
    monkeypatch.setitem(sys.modules, "nicegui", None)
    assert mount_console(FastAPI()) is False


@pytest.mark.slow
def test_the_page_may_be_left_out(tmp_path):
    with serving(tmp_path, "--no-console") as server:
        assert {httpx.get(server.url + path).status_code for path in ("/", "/console/")} == {404}
        upgrade = {"Connection": "Upgrade", "Upgrade": "websocket"}
        assert httpx.get(f"{server.url}/v1/models", headers=upgrade).status_code == 200
        assert "/console" not in (tmp_path / "server.log").read_text("utf-8")


@pytest.mark.slow
def test_the_page_holds_nothing_and_loads_nothing_from_elsewhere(tmp_path):
    with serving(tmp_path) as server:
        page = httpx.get(f"{server.url}/console/")
        policy = page.headers["Content-Security-Policy"]
        assert "http" not in policy
        assert "frame-ancestors 'none'" in policy
        assert page.headers["X-Frame-Options"] == "DENY"
        assert "sst2" not in page.text
        for short in ("", "/", "/console"):
            assert str(httpx.get(server.url + short, follow_redirects=True).url) == str(page.url)
        metrics = httpx.get(f"{server.url}/metrics").text
        assert 'route="/console"' in metrics
        assert 'route="/"' in metrics
        assert "_nicegui" not in metrics
