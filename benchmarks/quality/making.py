"""Makes the experts that rows need beside the library's own: merged ones, and LoraHub's.

They go into a library of their own (`Places.made`), and are made again only when what they are
made of changes. The strength of task arithmetic and of TIES is chosen on the data set aside, as
their papers choose it on validation data. The multitask expert is trained elsewhere:
`sailplane train --together multitask --library benchmarks/quality/experts`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from benchmarks.quality.lorahub import BUDGET, few_shot, search
from benchmarks.quality.parts import FOLDERS, TEST_HELD, Part
from benchmarks.quality.rows import ExpertRow, PerTaskRow, Row
from benchmarks.quality.workbench import Places, Told, digest_of, open_engine, sha_of
from experts.atomic import atomic_write
from experts.backbones import TextEncoder
from experts.entries import CONFIG, WEIGHTS, Entry
from experts.library import Library
from experts.loader import load_expert
from experts.merging import Merged, Plan, apply, make_plan, validate
from experts.merging.adding import add_merged
from experts.mix import RowMix, build_mix
from experts.stacks import stack_experts
from experts.training.data import Task, read_tasks
from experts.weights import ExpertWeights
from server.engine.judging import choose

RULES = {"average": "average", "ties": "ties", "arithmetic": "task_arithmetic"}
"""Expert -> merge rule."""
SCALED = ("ties", "arithmetic")
STRENGTHS = (0.1, 0.2, 0.3, 0.4, 0.6, 0.8, 1.0)
TUNING = Part("in", aside=True, limit=20)
BATCH, SEED = 64, 0


def make_experts(places: Places, rows: Iterable[Row], told: Told = lambda _: None) -> None:
    """Make what these rows need and is not there as it should be.

    Raises:
        ExpertError: the library or the data cannot be read, or its experts cannot be merged.
    """
    rules = [r.expert for r in rows if isinstance(r, ExpertRow) and r.expert in RULES]
    prefixes = [r.prefix for r in rows if isinstance(r, PerTaskRow)]
    if rules or prefixes:
        maker = Maker.at(places)
        for id in rules:
            maker.merge(id, told)
        for prefix in prefixes:
            maker.search(prefix, told)


@dataclass(frozen=True, eq=False)
class Maker:
    """The experts to merge, and where what becomes of them goes."""

    places: Places
    backbone: TextEncoder
    entries: Sequence[Entry]
    made: Library

    @classmethod
    def at(cls, places: Places) -> Maker:
        """A maker for these places."""
        places.made.mkdir(parents=True, exist_ok=True)
        engine = open_engine(places, places.library)
        backbone = engine.backbone
        entries = [e for e in engine.library.entries.values() if e.manifest.kind == "lora"]
        made = Library.open(places.made, fingerprint=backbone.fingerprint, backbone_id=backbone.id)
        return cls(places, backbone, entries, made)

    def merge(self, id: str, told: Told) -> None:
        """One expert of all, by the rule of this id."""
        tasks = TUNING.tasks(self.places.data) if id in SCALED else []
        files = [sha_of(t.folder / "train.jsonl.gz") for t in tasks]
        stamp = digest_of(RULES[id], self._sources, STRENGTHS, TUNING.limit, files)
        if self._is_made(id, stamp):
            return
        told(f"merging {id}")
        experts = self._experts()
        names = [e.id for e in experts]
        plan = make_plan(RULES[id], names, parameters={"lambda": 1.0} if tasks else None)
        validate(plan, experts)
        merged = apply(plan, experts, id)
        if tasks:
            strength = self._best_strength(merged.expert, tasks, told)
            plan = make_plan(RULES[id], names, parameters={"lambda": strength})
            merged = apply(plan, experts, id)
        self._add(plan, merged, stamp)

    def search(self, prefix: str, told: Told) -> None:
        """One expert per task, by LoraHub's search on five of its training examples."""
        for held in TEST_HELD:
            folder = self.places.data / FOLDERS[held]
            for task in read_tasks(folder) if folder.is_dir() else []:
                id = f"{prefix}.{task.name}"
                train = sha_of(task.folder / "train.jsonl.gz")
                stamp = digest_of(prefix, self._sources, train, SEED, BUDGET)
                if self._is_made(id, stamp):
                    continue
                told(f"LoraHub for {task.name}")
                experts = self._experts()
                found = search(
                    self.backbone, experts, few_shot(task.train, SEED), SEED, budget=BUDGET
                )
                chosen = [e for e in experts if e.id in found.weights]
                weights = [found.weights[e.id] for e in chosen]
                plan = make_plan("lorahub", [e.id for e in chosen], weights=weights)
                self._add(plan, found.merged(experts, id), stamp)

    @property
    def _sources(self) -> list[str]:
        return [digest_of({n: e.manifest.files[n] for n in (CONFIG, WEIGHTS)}, e.id)
                for e in self.entries]  # fmt: skip

    def _experts(self) -> list[ExpertWeights]:
        """Loaded for each merge anew: all of them together are small beside a merge."""
        sites, dtype = self.backbone.sites, self.backbone.dtype
        return [load_expert(e, sites, dtype=dtype) for e in self.entries]

    def _is_made(self, id: str, stamp: str) -> bool:
        path = self._stamp(id)
        return id in self.made.entries and path.exists() and path.read_text("utf-8") == stamp

    def _add(self, plan: Plan, merged: Merged, stamp: str) -> None:
        sources = {e.id: e for e in self.entries}
        id = merged.expert.id
        add_merged(
            self.made, plan, merged, [sources[name] for name in plan.sources],
            self.backbone.sites, replace=id in self.made.entries or id in self.made.bad,
        )  # fmt: skip
        self._stamp(id).parent.mkdir(parents=True, exist_ok=True)
        atomic_write(self._stamp(id), stamp.encode())

    def _stamp(self, id: str) -> Path:
        return self.places.work / "made-from" / id

    def _best_strength(self, merged: ExpertWeights, tasks: Sequence[Task], told: Told) -> float:
        """Of `STRENGTHS`, the one of the best mean accuracy on the data set aside."""
        means: dict[float, float] = {}
        for strength in STRENGTHS:
            told(f"{merged.id} at {strength:g}")
            means[strength] = float(np.mean(
                [_accuracy(self.backbone, merged, t, strength) for t in tasks if t.aside]
            ))  # fmt: skip
        return max(means, key=lambda s: means[s])


def _accuracy(backbone: TextEncoder, expert: ExpertWeights, task: Task, strength: float) -> float:
    """Accuracy of one expert at a strength on a task's examples set aside."""
    examples = TUNING.examples(task)
    row, stack = RowMix.of({expert.id: 1.0}, strength), [stack_experts([expert])]
    embedded: Callable[[str], Tensor] = _embedder(
        backbone, {o for e in examples for o in e.options}
    )
    right = 0
    with torch.inference_mode():
        for start in range(0, len(examples), BATCH):
            batch = examples[start : start + BATCH]
            tokens = backbone.tokenize([e.input for e in batch], truncate=True)
            state_BD = backbone.encode(tokens, build_mix([row] * len(batch), stack)).cpu()
            for example, state_D in zip(batch, state_BD, strict=True):
                p_C = choose(state_D, torch.stack([embedded(o) for o in example.options]))
                right += int(p_C.argmax()) == example.answer
    return right / len(examples)


def _embedder(backbone: TextEncoder, texts: Iterable[str]) -> Callable[[str], Tensor]:
    """Looks vectors of these texts up, all of them embedded at once."""
    ordered = sorted(texts)
    with torch.inference_mode():
        vectors = dict(zip(ordered, backbone.embed(ordered).cpu(), strict=True))
    return vectors.__getitem__
