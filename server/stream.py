"""Continual learning: a stream of tasks, one expert each, and nothing old is touched.

As in DAM (Cheng et al. 2024): the backbone is frozen, expert t starts from the tensors of expert
t - 1, and an expert can be routed to as soon as it is described, beside all former ones. Knows
neither the command line nor who serves what comes of it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from experts.backbones import Backbone
from experts.embedder import Embedder
from experts.library import Entry, Library
from experts.manifest import TaskCard
from experts.training.build import is_trained, train_tasks
from experts.training.data import Task
from experts.training.past import AFRESH, Past, start_of
from experts.training.recipe import Recipe
from experts.training.schedule import Progress
from routers.fitting.build import describe_task, fit_task, is_fitted


@dataclass(frozen=True)
class Stream:
    """How the experts of a stream are made.

    Attributes:
        root: the library they are written to. cards: of every known task, by id. gates: fit gates
            too, for token routing; without, an expert is described by its training inputs.
    """

    backbone: Backbone
    embedder: Embedder
    root: Path
    cards: Mapping[str, TaskCard]
    recipe: Recipe
    gates: bool = False

    def train(self, tasks: Sequence[Task], progress: Callable[[str], Progress]) -> Iterator[Entry]:
        """Each task's expert in turn, as soon as routers may choose it.

        What is there already, from the same recipe and the same start, is not made again.

        Args:
            progress: from what is being made to who is told how far that is.
        """
        library = Library.open(
            self.root, fingerprint=self.backbone.fingerprint, backbone_id=self.backbone.id
        )
        past = AFRESH
        for task in tasks:
            if not is_trained(library, task.name, [task], self.recipe, past):
                train_tasks(
                    self.backbone, self.root, task.name, [task], self.cards, self.recipe,
                    progress(task.name), past,
                )  # fmt: skip
                library.refresh()
            if not self._is_ready(library.get(task.name)):
                self._fit(library, task, progress)
                library.refresh()
            entry = library.get(task.name)
            yield entry
            past = Past(*start_of(entry, self.backbone))

    def _is_ready(self, entry: Entry) -> bool:
        gated = "gate" in entry.read_artefacts().vectors
        return is_fitted(entry, self.embedder) and (gated or not self.gates)

    def _fit(self, library: Library, task: Task, progress: Callable[[str], Progress]) -> None:
        if self.gates:
            told = progress(f"{task.name}: gates")
            fit_task(self.backbone, self.embedder, library, task, self.cards, told)
        else:
            describe_task(self.backbone, self.embedder, library, task)
