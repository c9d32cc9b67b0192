"""What lies on disk goes away or changes its nature under a server that serves it."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest

from tests.faults.clients import wait_until
from tests.faults.disks import disk, needs_root
from tests.faults.ledger import Fault, Ledger
from tests.faults.material import decision
from tests.faults.servers import Server, serving

pytestmark = pytest.mark.slow

Act = Callable[[Path], None]
SCAN = ("--scan-seconds", "0.2")


def delete(path: Path) -> None:
    shutil.rmtree(path)


def become_a_file(path: Path) -> None:
    shutil.rmtree(path)
    path.write_text("no folder")


def become_a_loop(path: Path) -> None:
    shutil.rmtree(path)
    path.symlink_to(path.name)


def close(path: Path) -> None:
    path.chmod(0)


def restore(path: Path, source: Path) -> None:
    """Have a folder be as it was, whatever became of it."""
    if path.is_symlink() or path.is_file():
        path.unlink()
    elif path.exists():
        path.chmod(0o755)
        shutil.rmtree(path)
    shutil.copytree(source, path)


ACTS: dict[str, Act] = {
    "deleted": delete, "replaced by a file": become_a_file, "a loop of symlinks": become_a_loop,
    "made unreadable": close,
}  # fmt: skip


def ask(server: Server, model: str) -> httpx.Response:
    body = {**decision(), "model": model}
    return httpx.post(f"{server.address}/v1/decisions", json=body, timeout=30)


def check(fault: Fault, server: Server, gone: str, others: tuple[str, ...]) -> None:
    """Ask for what is gone and for the others; an error must name what is gone."""
    answer = ask(server, gone)
    if answer.status_code == 200:
        fault.round("answered from memory")
    else:
        error = answer.json()["error"]
        fault.round(f"{answer.status_code} {error['code']}", lost=not any(
            name in error["message"] for name in (gone, ".safetensors", ".json")
        ))  # fmt: skip
        assert answer.status_code in (404, 422, 503), answer.text
    for model in others:
        assert ask(server, model).status_code == 200, ask(server, model).text
    assert httpx.get(f"{server.address}/health").status_code == 200


def serves(server: Server, models: tuple[str, ...]) -> bool:
    return all(ask(server, model).status_code == 200 for model in models)


@needs_root
@pytest.mark.parametrize("act", ACTS)
@pytest.mark.parametrize("loaded", [True, False])
def test_an_expert_is_gone_and_comes_back(
    act: str, loaded: bool, start_library: Path, tmp_path: Path, ledger: Ledger
) -> None:
    root = shutil.copytree(start_library, tmp_path / "library")
    with (
        ledger.fault(f"an expert's folder {act}") as fault,
        serving(tmp_path, "--library", str(root), *SCAN,
                before="tests.faults.sabotage:without_privileges") as server,
    ):  # fmt: skip
        if loaded:
            assert serves(server, ("weather",))
        ACTS[act](root / "weather")
        check(fault, server, "weather", ("mood", "auto"))
        wait_until(lambda: ask(server, "weather").status_code != 200)
        check(fault, server, "weather", ("mood", "auto"))
        restore(root / "weather", start_library / "weather")
        wait_until(lambda: serves(server, ("weather", "mood", "auto")))


@needs_root
@pytest.mark.parametrize("act", ACTS)
def test_the_library_is_gone_and_comes_back(
    act: str, start_library: Path, tmp_path: Path, ledger: Ledger
) -> None:
    root = shutil.copytree(start_library, tmp_path / "library")
    with (
        ledger.fault(f"the library's folder {act}") as fault,
        serving(tmp_path, "--library", str(root), *SCAN,
                before="tests.faults.sabotage:without_privileges") as server,
    ):  # fmt: skip
        assert serves(server, ("mood",))
        ACTS[act](root)
        for _ in range(2):
            check(fault, server, "weather", ("mood",))
            wait_until(lambda: "could not be looked at" in server.said)
        restore(root, start_library)
        wait_until(lambda: serves(server, ("weather", "mood", "auto")))


@needs_root
def test_the_library_is_unmounted(start_library: Path, tmp_path: Path, ledger: Ledger) -> None:
    with (
        ledger.fault("the library's disk unmounted") as fault,
        disk(tmp_path / "disk", "4m") as folder,
    ):
        shutil.copytree(start_library, folder, dirs_exist_ok=True)
        with serving(tmp_path, "--library", str(folder), *SCAN) as server:
            assert serves(server, ("mood",))
            subprocess.run(["umount", "--lazy", str(folder)], check=True)
            assert os.listdir(folder) == []
            check(fault, server, "weather", ("auto",))
            shutil.copytree(start_library, folder, dirs_exist_ok=True)
            wait_until(lambda: serves(server, ("weather", "mood", "auto")))


def test_the_routing_log_is_gone(start_library: Path, tmp_path: Path, ledger: Ledger) -> None:
    logs = tmp_path / "logs"
    logs.mkdir()
    options = ("--library", str(start_library), "--routing-log", str(logs / "routing.jsonl"),
               "--routing-log-bytes", "4096")  # fmt: skip
    with (
        ledger.fault("the routing log's folder deleted") as fault,
        serving(tmp_path, *options) as server,
    ):
        shutil.rmtree(logs)
        for _ in range(30):  # past the size at which a new file is begun
            fault.round("answered", lost=ask(server, "auto").status_code != 200)
        assert server.stop() == 0
