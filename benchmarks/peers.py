"""Against what people use to serve this backbone: infinity-emb, and sentence-transformers.

Same weights, texts, client and two cores; runs take turns. infinity-emb lives in a virtual
environment of its own, built on first use: it wants older libraries than Sailplane does.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from benchmarks.figures import Figure, at_least, reported
from benchmarks.material import decision, text, write_bodies
from benchmarks.places import PEERS
from benchmarks.processes import CONNECTIONS, Load, cores, require, serving, working, wrk
from benchmarks.server import serve_command
from experts.backbones.demo import demo_path

# Resolves to transformers 4, click 8.1 and typer 0.12 by its own bounds: no pin is needed.
REQUIREMENTS = ("torch>=2.11,<2.14", "infinity-emb[torch,server]==0.0.78")
MODEL = "all-MiniLM-L6-v2"
BATCH = 32
TEXTS = 40_000
Rates = dict[str, list[float]]


@dataclass(frozen=True)
class Contender:
    """A URL and the bodies it is sent."""

    url: str
    bodies: Path


def setup() -> Path:
    """Build the peer's virtual environment, unless it is there: the path of `infinity_emb`."""
    folder = PEERS / "infinity"
    done, wanted = folder / "requirements.txt", "\n".join(REQUIREMENTS)
    if not (done.is_file() and done.read_text("utf-8") == wanted):
        subprocess.run([sys.executable, "-m", "venv", "--clear", str(folder)], check=True)
        (PEERS / ".gitignore").write_text("*\n", "utf-8")
        pip = [str(folder / "bin/python"), "-m", "pip", "install", *REQUIREMENTS]
        subprocess.run(pip, check=True)
        done.write_text(wanted, "utf-8")
    return folder / "bin/infinity_emb"


def run(quick: bool) -> list[Figure]:
    """Requests per second of each contender, in turns."""
    require("wrk", "wrk")
    rounds, seconds = (2, 2.0) if quick else (5, 10.0)
    on = cores(2)
    with ExitStack() as stack:
        contenders = _contenders(stack, on)
        worker = stack.enter_context(working("sentence-transformers", on))
        at = dict.fromkeys(contenders, 0)

        def http(name: str) -> Callable[[float], float]:
            def measure(spell: float) -> float:
                who = contenders[name]
                load: Load = wrk(who.url, who.bodies, at[name], spell, on)
                at[name] += load.requests
                return load.rate

            return measure

        def in_process(spell: float) -> float:
            return worker.rate(at=0, batch=BATCH, seconds=spell)

        measures = {"sentence-transformers": in_process, **{n: http(n) for n in contenders}}
        rates = _alternate(measures, rounds, seconds)
    return _figures(rates)


def _alternate(measures: dict[str, Callable[[float], float]], rounds: int, seconds: float) -> Rates:
    """Every measure once a round, after a short one that does not count."""
    for measure in measures.values():
        measure(min(seconds, 3.0))
    rates: Rates = {name: [] for name in measures}
    for _ in range(rounds):
        for name, measure in measures.items():
            rates[name].append(measure(seconds))
    return rates


def _contenders(stack: ExitStack, on: list[int]) -> dict[str, Contender]:
    """Both servers started, and the requests for each."""
    infinity = [
        str(setup()), "v2", "--model-id", demo_path(), "--served-model-name", MODEL,
        "--engine", "torch", "--no-bettertransformer", "--device", "cpu", "--port", "{port}",
    ]  # fmt: skip
    offline = {"HF_HUB_OFFLINE": "1", "DO_NOT_TRACK": "1"}
    peer = stack.enter_context(serving(infinity, on, "/health", offline))
    ours = stack.enter_context(serving(serve_command(threads=len(on)), on, "/ready"))
    folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
    texts = write_bodies(folder / "texts", TEXTS, lambda i: {"model": MODEL, "input": text(i)})
    routed = write_bodies(folder / "routed", TEXTS, decision)
    # The second file starts elsewhere, so that no text's features are in the cache already.
    merged = write_bodies(
        folder / "merged", TEXTS, lambda i: decision(i + TEXTS, {"mode": "merge"})
    )
    return {
        "infinity": Contender(f"{peer}/embeddings", texts),
        "bare": Contender(f"{ours}/v1/embeddings", texts),
        "routed": Contender(f"{ours}/v1/decisions", routed),
        "merged": Contender(f"{ours}/v1/decisions", merged),
    }


def _figures(rates: Rates) -> list[Figure]:
    def ratio(name: str, base: str) -> float:
        return median(a / b for a, b in zip(rates[name], rates[base], strict=True))

    half = "half of sentence-transformers"
    in_process = "sentence-transformers"
    return [
        at_least("bare /v1/embeddings / infinity-emb 0.0.78", ratio("bare", "infinity"), 1.3),
        at_least(f"routed and merged /v1/decisions / {half}", 2 * ratio("merged", in_process), 0.9),
        at_least(f"default /v1/decisions / {half}", 2 * ratio("routed", in_process), 0.9),
        reported(f"bare /v1/embeddings, requests/s, {CONNECTIONS} connections",
                 median(rates["bare"])),
        reported("infinity-emb /embeddings, requests/s", median(rates["infinity"])),
        reported("routed and merged /v1/decisions, requests/s", median(rates["merged"])),
        reported("default /v1/decisions, requests/s", median(rates["routed"])),
        reported(f"sentence-transformers in-process, batch {BATCH}, texts/s",
                 median(rates[in_process])),
    ]  # fmt: skip
