"""Faults of all sorts against real servers: each ends in an answer or a clear error, and nothing
is lost.

`pytest tests/faults -m "" --faults FILE` also keeps the table that is printed at the end.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.faults.ledger import Ledger
from tests.faults.material import write_adapters, write_library
from tests.faults.servers import Server, serving

LEDGER = pytest.StashKey[Ledger]()
SEED = 6


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--faults", type=Path, metavar="FILE", help="keep the table of faults there")


def pytest_terminal_summary(
    terminalreporter: pytest.TerminalReporter, config: pytest.Config
) -> None:
    ledger = config.stash.get(LEDGER, None)
    if ledger is None or not ledger.faults:
        return
    terminalreporter.section("faults")
    for line in ledger.lines():
        terminalreporter.line(line)
    if path := config.getoption("--faults", default=None):
        if unfit := sum(len(terminalreporter.stats.get(s, ())) for s in ("skipped", "error")):
            terminalreporter.line(f"{unfit} were skipped or could not begin: {path} is not written")
        else:
            ledger.save(path)


def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    """A table that is to be kept has every fault in it."""
    terminal = session.config.pluginmanager.get_plugin("terminalreporter")
    if session.config.getoption("--faults", default=None) and terminal.stats.get("skipped"):
        session.exitstatus = exitstatus or pytest.ExitCode.TESTS_FAILED


@pytest.fixture(scope="session")
def ledger(pytestconfig: pytest.Config) -> Ledger:
    return pytestconfig.stash.setdefault(LEDGER, Ledger())


@pytest.fixture
def chance(request: pytest.FixtureRequest) -> random.Random:
    """Random moments and places, the same in every run; its seed is shown where a test fails."""
    print("seed", SEED, "of", request.node.name)
    return random.Random(f"{SEED} {request.node.name}")


@pytest.fixture(scope="session")
def start_library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Experts `weather` and `mood`, which has former versions and an alias. To be copied."""
    return write_library(tmp_path_factory.mktemp("start") / "library")


@pytest.fixture(scope="session")
def adapters(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Experts to be added: `flight`, and another `mood`."""
    return write_adapters(tmp_path_factory.mktemp("adapters"))


@pytest.fixture(scope="module")
def server(
    request: pytest.FixtureRequest, start_library: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Server]:
    """One server for a module's tests, with the options that the module names in `OPTIONS`."""
    folder = tmp_path_factory.mktemp("served")
    options = getattr(request.module, "OPTIONS", ())
    with serving(folder, "--library", str(start_library), *options) as server:
        yield server
