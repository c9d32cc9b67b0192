"""The project's own rules that no tool checks: sizes of files and functions, warnings as errors."""

import ast
import subprocess
import warnings
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = ("experts", "routers", "server")
SOURCES = sorted(p for package in PACKAGES for p in (ROOT / package).rglob("*.py"))
MOST_LINES, MOST_LINES_OF_A_FUNCTION = 300, 50


def name_of(path: Path) -> str:
    return str(path.relative_to(ROOT))


@pytest.mark.parametrize("path", SOURCES, ids=name_of)
def test_every_module_says_what_it_does_and_fits_on_a_few_pages(path):
    text = path.read_text("utf-8")
    tree = ast.parse(text)
    assert ast.get_docstring(tree), "open the module with what it does and does not know"
    assert len(text.splitlines()) <= MOST_LINES
    functions = (ast.FunctionDef, ast.AsyncFunctionDef)
    sizes = {
        node.name: node.end_lineno - node.lineno + 1
        for node in ast.walk(tree)
        if isinstance(node, functions)
    }
    assert {n: s for n, s in sizes.items() if s > MOST_LINES_OF_A_FUNCTION} == {}


@pytest.mark.parametrize("package", PACKAGES)
def test_a_warning_from_our_packages_is_an_error(package):
    code = "import warnings; warnings.warn('told')"
    with pytest.raises(UserWarning, match="told"):
        exec(code, {"__name__": f"{package}.somewhere"})


def test_a_warning_from_elsewhere_is_not():
    with warnings.catch_warnings(record=True) as caught:
        exec("import warnings; warnings.warn('told')", {"__name__": "elsewhere"})
    assert len(caught) == 1


def test_tracked_text_names_no_path_of_a_machine():
    found = subprocess.run(
        ["git", "grep", "-nIE", r"/(home|work|root|Users)/[a-z]", "--", ".", ":!tests"],
        cwd=ROOT, capture_output=True, text=True,
    )  # fmt: skip
    assert found.stdout == ""
