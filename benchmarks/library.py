"""A library of 10,000 experts: opening it, routing over it, and serving more than fits in memory.

`python -m benchmarks.library FOLDER` opens a library in a process of its own and prints seconds
and bytes as JSON; `run` compares that and the engine with a library of 18.
"""

from __future__ import annotations

import json
import random
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from statistics import mean, median

import torch

from benchmarks import working_set
from benchmarks.figures import Figure, at_least, at_most, reported
from benchmarks.many import Maker
from benchmarks.timing import take_turns
from benchmarks.working_set import BATCH, answer, forced
from experts.backbones import open_backbone
from experts.library import Library
from routers.catalogue import Catalogue
from routers.policy import Wishes, decide
from routers.presets import DEFAULT, PRESETS, RANKING
from routers.request import REQUEST_ROUTERS
from routers.types import Features
from server.build import build_engine
from server.engine.run import Engine
from server.engine.view import LibraryView
from server.settings import read_settings

FEW, MANY = 18, 10_000
OPEN_SECONDS, OPEN_MB, ROUTE_MS, RECALL, GROWTH = 10.0, 300.0, 2.0, 0.99, 1.05
LOOK = 0.3
QUERIES = 200
BEST = PRESETS[DEFAULT].experts


def run(quick: bool) -> list[Figure]:
    """All figures of a large library."""
    count = 600 if quick else MANY
    maker = Maker(open_backbone("demo"))
    few, many = maker.library(FEW), maker.library(count)
    return [
        *_opening(many, 1 if quick else 3),
        *_routing(maker, few, many, count),
        *_growth(few, many, count, 2 if quick else 15),
        *working_set.measure(_engine(many), count, quick),
    ]


def _opening(many: Path, rounds: int) -> list[Figure]:
    """In fresh processes: what the library adds to one that has the backbone already."""
    command = [sys.executable, "-m", "benchmarks.library", str(many)]
    told = [json.loads(subprocess.check_output(command)) for _ in range(rounds)]
    return [
        at_most("open: seconds", median(t["seconds"] for t in told), OPEN_SECONDS),
        at_most("open: resident MB added", median(t["mb"] for t in told), OPEN_MB),
        at_most("look again, nothing changed: seconds", median(t["again"] for t in told), LOOK),
    ]


def _routing(maker: Maker, few: Path, many: Path, count: int) -> list[Figure]:
    """The router and the policy alone, from features to a selection, one query at a time."""
    small, large = _engine(few), _engine(many)
    figures: list[Figure] = []
    for sentence, sort in ((True, ""), (False, ", input alone")):
        queries = [
            maker.query(i, 1, sentence=sentence)
            for i in random.Random(0).sample(range(count), QUERIES)
        ]
        ms = {e: median(_timed(e, q) for q in queries) * 1e3 for e in (small, large)}
        recall = mean(_recall(large, q) for q in queries)
        figures += [
            at_most(f"routing one query over all{sort}, ms", ms[large], ROUTE_MS),
            reported(f"routing one query over {FEW}{sort}, ms", ms[small]),
            at_least(f"shortlist: recall of the best {BEST}{sort}", recall, RECALL),
        ]
    return figures


def _recall(engine: Engine, query: Features) -> float:
    """Share of the best experts of all that are the best of the shortlist."""
    whole, wishes = engine.routing.view.current().shortlist, Wishes()
    short = whole.of(query, wishes, BEST)
    found, best = (_best(engine, catalogue, query) for catalogue in (short, whole.catalogue))
    return len({*found} & {*best}) / BEST


def _best(engine: Engine, catalogue: Catalogue, query: Features) -> list[str]:
    """The best experts of a catalogue by the default router, all of it scored."""
    score_E = REQUEST_ROUTERS[RANKING].score(query, catalogue, engine.routing.calibration).score_E
    return [catalogue.ids[i] for i in score_E.topk(min(BEST, len(score_E))).indices.tolist()]


@torch.inference_mode()  # as the engine decides
def _timed(engine: Engine, query: Features) -> float:
    built, router = engine.routing.view.current(), REQUEST_ROUTERS[RANKING]
    begun = time.perf_counter()
    query = replace(query)  # nothing of it is worked out yet
    catalogue = built.shortlist.of(query, Wishes(), BEST)
    scores = router.score(query, catalogue, built.calibration)
    decide(PRESETS[DEFAULT], scores, catalogue, built.calibration, Wishes())
    return time.perf_counter() - begun


def _growth(few: Path, many: Path, count: int, rounds: int) -> list[Figure]:
    """The same batch over the same 16 experts, in a small and in a large library."""
    samples = [forced(i, i % 16) for i in range(BATCH)]
    cases: dict[str, Callable[[], object]] = {
        name: lambda engine=engine: answer(engine, samples)
        for name, engine in {"few": _engine(few), "many": _engine(many)}.items()
    }
    times = take_turns(cases, rounds)
    return [at_most(f"batch over {count} experts / over {FEW}", times.ratio("many", "few"), GROWTH)]


def _engine(library: Path) -> Engine:
    return build_engine(read_settings({"library": library}).settings)


def _open(folder: Path) -> dict[str, float]:
    """Seconds and MB of opening a library, and seconds of another look, with the backbone there."""
    backbone = open_backbone("demo")
    torch.set_num_threads(1)  # as the engine has it on a CPU
    backbone.embed(["warm"])
    query = Maker(backbone).query(0, 0)
    before, begun = _resident_mb(), time.perf_counter()
    library = Library.open(folder, fingerprint=backbone.fingerprint)
    view = LibraryView(backbone, backbone, library)
    view.current().shortlist.of(query, Wishes(), BEST)
    figures = {"seconds": time.perf_counter() - begun, "mb": _resident_mb() - before}
    begun = time.perf_counter()
    library.refresh()
    return {**figures, "again": time.perf_counter() - begun}


def _resident_mb() -> float:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * 4096 / 1e6


if __name__ == "__main__":
    with torch.inference_mode():
        sys.stdout.write(json.dumps(_open(Path(sys.argv[1]))))
