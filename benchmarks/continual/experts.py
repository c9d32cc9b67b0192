"""The experts of one setting, each trained once and kept, and the library that answers are from.

Every chain is a library of its own below the setting's folder, so that an interrupted run finds
what it has. `gather` puts all of them into one library: what routers may choose carries a tag for
each step at which it is there already, the rest has no artefacts and is only ever named.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import safetensors.torch

from benchmarks.continual.constants import take_over
from benchmarks.continual.plan import Plan, Setting
from benchmarks.continual.rows import TOGETHER, id_of, tag_of
from experts.atomic import atomic_folder, atomic_write
from experts.backbones import TextEncoder
from experts.entries import MANIFEST, ROUTING, Entry, read_manifest
from experts.files import read_tensors
from experts.library import Library
from experts.manifest import TaskCard
from experts.training.build import corpus_of, is_trained, train_tasks
from experts.training.data import Task
from experts.training.ewc import Anchor, fisher_of
from experts.training.past import AFRESH, Past, start_of
from experts.training.schedule import Progress
from experts.writing import seal
from server.stream import Stream

ROUTED = ("continual", "alone")
"""Chains whose experts routers may choose; those of the others are only ever named."""
MAX_BYTES = 1 << 30
Told = Callable[[str], Progress]


@dataclass(frozen=True)
class Chains:
    """Trains what a setting needs; what is there already is found.

    Attributes:
        constants: where those are that the experts are described by.
        told: from what is being made to who is told how far it is.
    """

    plan: Plan
    setting: Setting
    backbone: TextEncoder
    constants: Path
    cards: Mapping[str, TaskCard]
    told: Told

    @property
    def root(self) -> Path:
        """The setting's folder."""
        return self.plan.cache / self.setting.name

    def make(self) -> dict[str, list[Entry]]:
        """Every expert that rows need: chain -> one a task, in the order of the stream."""
        tasks, rows = self.plan.tasks(self.setting), self.plan.shown
        needed = {row.chain for row in rows}
        continual = list(self._stream("continual").train(tasks, self.told))
        made = {"continual": continual}
        # The first expert of a stream has no past: it is the same in every chain.
        if "alone" in needed:
            afresh = self._stream("alone")
            alone = [entry for task in tasks[1:] for entry in afresh.train([task], self.told)]
            made["alone"] = [continual[0], *alone]
        for chain, past_of in (("replay", self._replayed), ("ewc", self._anchored)):
            if chain in needed:
                after = self._after(continual[0], tasks, chain, past_of)
                made[chain] = [continual[0], *after]
        if TOGETHER in needed:
            made[TOGETHER] = [self._train(TOGETHER, TOGETHER, tasks, AFRESH)]
        return made

    def _stream(self, chain: str) -> Stream:
        root, recipe = self.root / chain, self.plan.recipe(self.setting)
        take_over(self.constants, root)
        return Stream(self.backbone, self.backbone, root, self.cards, recipe)

    def _after(
        self, first: Entry, tasks: Sequence[Task], chain: str,
        past_of: Callable[[Sequence[Entry], Sequence[Task]], Past],
    ) -> Iterator[Entry]:  # fmt: skip
        """The experts after the first, each with a past of all before it."""
        made = [first]
        for step, task in enumerate(tasks[1:], 1):
            made.append(self._train(chain, task.name, [task], past_of(made, tasks[:step])))
            yield made[-1]

    def _replayed(self, made: Sequence[Entry], former: Sequence[Task]) -> Past:
        recipe, share = self.plan.recipe(self.setting), self.plan.retention.replay
        corpora = [corpus_of(task, self.cards, recipe) for task in former]
        memory = [corpus.remembered(share, self.setting.seed) for corpus in corpora]
        return Past(*start_of(made[-1], self.backbone), memory=memory)

    def _anchored(self, made: Sequence[Entry], former: Sequence[Task]) -> Past:
        anchors = [self._anchor(entry, task) for entry, task in zip(made, former, strict=True)]
        start = start_of(made[-1], self.backbone)
        return Past(*start, anchors=anchors, strength=self.plan.retention.ewc)

    def _anchor(self, entry: Entry, task: Task) -> Anchor:
        """What EWC keeps of a former task; its Fisher information is computed once."""
        expert, origin = start_of(entry, self.backbone)
        count = self.plan.retention.fisher
        path = self.root / "fisher" / f"{count}-{origin.replace(' ', '-')}.safetensors"
        if not path.exists():
            recipe = self.plan.recipe(self.setting)
            corpus = corpus_of(task, self.cards, recipe)
            told = self.told(f"{task.name}: Fisher")
            fisher = fisher_of(self.backbone, expert, corpus, recipe, count, told)
            flat = {
                f"{site}:{part}": t for site, parts in fisher.items() for part, t in parts.items()
            }
            path.parent.mkdir(parents=True, exist_ok=True)
            atomic_write(path, safetensors.torch.save(flat))
        flat = read_tensors(path, MAX_BYTES).tensors
        shaped = {
            site: {part: flat[f"{site}:{part}"] for part in parts}
            for site, parts in expert.sites.items()
        }
        return Anchor(expert.sites, shaped)

    def _train(self, chain: str, id: str, tasks: Sequence[Task], past: Past) -> Entry:
        """One expert that is not for routers, if it is not there."""
        recipe = self.plan.recipe(self.setting)
        folder = chain if chain != "ewc" else f"ewc-{self.plan.retention.ewc:g}"
        library = Library.open(
            self.root / folder, fingerprint=self.backbone.fingerprint, backbone_id=self.backbone.id
        )
        if is_trained(library, id, tasks, recipe, past):
            return library.get(id)
        told = self.told(f"{chain} {id}")
        return train_tasks(self.backbone, library.root, id, tasks, self.cards, recipe, told, past)


def gather(made: Mapping[str, Sequence[Entry]], order: Sequence[str], root: Path) -> None:
    """Put the experts of all chains into the library at `root`; what is right there stays."""
    last = len(order)
    for chain, entries in made.items():
        routed = chain in ROUTED
        for place, entry in enumerate(entries):
            id = TOGETHER if chain == TOGETHER else id_of(chain, order[place])
            tags = [tag_of(chain, step) for step in range(place, last)] if routed else []
            _place(entry, root / id, id, tuple(tags), routed=routed)


def _place(entry: Entry, target: Path, id: str, tags: tuple[str, ...], *, routed: bool) -> None:
    """Copy an expert's folder under another id and with tags; without artefacts unless routed."""
    left_out = {MANIFEST} if routed else {MANIFEST, ROUTING}
    names = {name for name in entry.manifest.files if name not in left_out}
    known = read_manifest(target) if (target / MANIFEST).exists() else None
    wanted = {name: entry.manifest.files[name] for name in names}
    if known and (known.files, known.tags) == (wanted, tags):
        return
    with atomic_folder(target) as folder:
        for name in names:
            shutil.copyfile(entry.path / name, folder / name)
        seal(folder, entry.manifest.model_copy(update={"id": id, "tags": tags, "version": 1}))
