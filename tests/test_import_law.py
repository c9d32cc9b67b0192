"""The import law: experts imports neither sibling, routers may import experts, server both."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = ("experts", "routers", "server")
FORBIDDEN = {"experts": {"routers", "server"}, "routers": {"server"}, "server": set[str]()}
HTTP = {"fastapi", "starlette", "uvicorn", "httpx", "openai", "prometheus_client"}


def imported(source: str) -> set[str]:
    """Top-level packages that a module imports, wherever in it."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            found.add(node.module.split(".")[0])
        elif isinstance(node, ast.ImportFrom) and node.level:
            found.add("<relative>")
    return found


@pytest.mark.parametrize("package", PACKAGES)
def test_a_package_imports_only_what_the_law_allows(package: str) -> None:
    files = sorted((ROOT / package).rglob("*.py"))
    assert files
    broken = {
        str(file.relative_to(ROOT)): sorted(bad)
        for file in files
        if (bad := imported(file.read_text()) & (FORBIDDEN[package] | {"<relative>", "tests"}))
    }
    assert broken == {}


@pytest.mark.parametrize("package", ["experts", "routers"])
def test_http_lives_in_the_server_only(package: str) -> None:
    broken = {
        str(file.relative_to(ROOT)): sorted(bad)
        for file in sorted((ROOT / package).rglob("*.py"))
        if (bad := imported(file.read_text()) & HTTP)
    }
    assert broken == {}


def test_the_check_sees_imports_inside_functions() -> None:
    source = "def f():\n    from server.api import x\n    import routers.types as t\n"
    assert imported(source) == {"server", "routers"}
