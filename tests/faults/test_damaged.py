"""Damaged files, found at the start or while serving: named, and never served as something else."""

from __future__ import annotations

import random
import shutil
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest

from tests.faults.ledger import Fault, Ledger
from tests.faults.material import decision, opened
from tests.faults.servers import Server, begin, serving

EXPERT = ("adapter_model.safetensors", "adapter_config.json", "expert.json", "routing.safetensors")
LIBRARY = ("aliases.json", "calibration.json", "calibration-*.safetensors")
OPTIONS = ("--scan-seconds", "0")
Damage = Callable[[Path, random.Random], None]


def truncate(path: Path, chance: random.Random) -> None:
    data = path.read_bytes()
    path.write_bytes(data[: chance.randrange(len(data))])


def flip(path: Path, chance: random.Random) -> None:
    data = bytearray(path.read_bytes())
    at = chance.randrange(len(data))
    data[at] ^= 1 << chance.randrange(8)
    path.write_bytes(data)


DAMAGES: dict[str, Damage] = {"truncated": truncate, "bit-flipped": flip}


def ask(server: Server, model: str) -> httpx.Response:
    body = {**decision(), "model": model}
    return httpx.post(f"{server.address}/v1/decisions", json=body, timeout=30)


def scan(server: Server) -> httpx.Response:
    return httpx.post(f"{server.address}/v1/experts/scan", json={}, timeout=30)


def probabilities(answer: httpx.Response) -> list[float]:
    return [p["probability"] for p in answer.json()["answers"][0]["probabilities"]]


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("rounds", [3, pytest.param(109, marks=pytest.mark.slow)])
def test_an_expert_damaged_while_it_is_served(
    rounds: int, damage: str, start_library: Path, tmp_path: Path, chance: random.Random,
    ledger: Ledger,
) -> None:  # fmt: skip
    """Before a request first reads it; half of the time the library is looked at in between."""
    with serving(tmp_path, "--library", str(start_library), *OPTIONS) as server:
        sound = probabilities(ask(server, "weather"))
    with ledger.fault(f"{damage} files of an expert, while serving") as fault:
        for turn in range(rounds):
            root = shutil.copytree(start_library, tmp_path / f"library-{turn}")
            name = EXPERT[turn // 2 % len(EXPERT)]
            with serving(tmp_path, "--library", str(root), *OPTIONS) as server:
                DAMAGES[damage](root / "weather" / name, chance)
                if turn % 2:
                    scan(server)
                told(fault, f"{turn}: {name}", ask(server, "weather"), sound)
                assert ask(server, "mood").status_code == 200
                assert ask(server, "auto").status_code == 200
                shutil.rmtree(root / "weather")
                shutil.copytree(start_library / "weather", root / "weather")
                scan(server)
                assert probabilities(ask(server, "weather")) == pytest.approx(sound, abs=1e-5)


def told(fault: Fault, what: str, answer: httpx.Response, sound: list[float]) -> None:
    """Count a round: an error that names what is wrong, or the very answer that was right."""
    print(what, answer.status_code, answer.text[:200])
    if answer.status_code == 200:
        # A bit in what is only said of an expert (its title), or in what was read before.
        wrong = probabilities(answer) != pytest.approx(sound, abs=1e-5)
        fault.round("the right answer", lost=wrong)
        return
    assert answer.status_code in (404, 422), answer.text
    message = answer.json()["error"]["message"]
    fault.round("an error that names it", lost="weather" not in message and ".json" not in message
                and ".safetensors" not in message)  # fmt: skip


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("rounds", [4, pytest.param(60, marks=pytest.mark.slow)])
def test_files_damaged_before_the_start(
    rounds: int, damage: str, start_library: Path, tmp_path: Path, chance: random.Random,
    ledger: Ledger,
) -> None:  # fmt: skip
    with serving(tmp_path, "--library", str(start_library), *OPTIONS) as server:
        sound = probabilities(ask(server, "weather"))
    with ledger.fault(f"{damage} files, before the start") as fault:
        for turn in range(rounds):
            root = shutil.copytree(start_library, tmp_path / f"library-{turn}")
            expert = turn % 2 == 0
            pattern = EXPERT[turn // 2 % 4] if expert else LIBRARY[turn // 2 % 3]
            (path,) = (root / "weather" if expert else root).glob(pattern)
            DAMAGES[damage](path, chance)
            server = begin(tmp_path, "--library", str(root), *OPTIONS)
            try:
                code = None
                try:
                    server.wait_until_ready()
                except AssertionError:
                    code = server.ended(10)
                if code is None:
                    told(fault, f"{turn}: {path.name}", ask(server, "weather"), sound)
                    assert ask(server, "mood").status_code == 200
                else:
                    named = path.name[:7] in server.said  # its name may be what was damaged
                    fault.round(f"refused to start, exit {code}", lost=not named or code != 1)
                    assert "Traceback" not in server.said, server.said
            finally:
                server.kill()


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("rounds", [3, pytest.param(60, marks=pytest.mark.slow)])
def test_files_of_the_library_damaged_while_it_is_served(
    rounds: int, damage: str, start_library: Path, tmp_path: Path, chance: random.Random,
    ledger: Ledger,
) -> None:  # fmt: skip
    root = shutil.copytree(start_library, tmp_path / "library")
    with (
        ledger.fault(f"{damage} aliases and constants, while serving") as fault,
        serving(tmp_path, "--library", str(root), *OPTIONS) as server,
    ):
        sound = probabilities(ask(server, "weather"))
        for turn in range(rounds):
            (path,) = root.glob(LIBRARY[turn % len(LIBRARY)])
            kept = path.read_bytes()
            DAMAGES[damage](path, chance)
            found = scan(server)
            print(turn, path.name, found.status_code, found.text[:200])
            assert found.status_code in (200, 422), found.text
            answer = ask(server, "weather")
            assert answer.status_code == 200, answer.text
            assert ask(server, "auto").status_code == 200
            refused = found.status_code == 422
            named = not refused or path.name[:7] in found.text
            same = probabilities(answer) == pytest.approx(sound, abs=1e-5)
            ending = (
                "named by a scan, the former serve on"
                if refused
                else (
                    "still to be read, the same answers"
                    if same
                    else "still to be read, as it says now"
                )
            )
            fault.round(ending, lost=not named or (refused and not same))
            path.write_bytes(kept)
            assert scan(server).status_code == 200
    assert not opened(root).bad
