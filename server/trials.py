"""The constants that only answers can tell: tried on questions set aside, by the serving engine.

Reads and writes no file: what is tried is in force only while it is being asked.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace

from experts.backbones import LanguageModel
from experts.manifest import TaskCard
from experts.training.data import Task
from routers.calibration import Calibration
from routers.presets import DEFAULT
from server.engine.run import Engine
from server.engine.view import Built
from server.evaluate import Sees, measure
from server.temperature import fit_temperature
from server.written import likelihoods

THRESHOLDS = (0.8, 0.6, 0.95)
BETAS = (3.0, 10.0, 30.0)
GAMMAS = (100.0, 30.0, 300.0)
FLATNESSES = (0.15, 0.3, 0.6)
UNSURES = (0.5, 0.25)
SHARPNESSES = (1.0, 4.0, 16.0)
PER_TASK = 24
Told = Callable[[], object]


@dataclass(frozen=True)
class Rule:
    """One trial of the global rule's constants."""

    threshold: float
    beta: float
    gamma: float = GAMMAS[0]


@dataclass(frozen=True)
class Hedge:
    """One trial of how experts are mixed, above all where none fits."""

    flatness: float
    unsure: float
    sharpness: float = 1.0


RULES = tuple(Rule(p, beta) for beta in BETAS for p in THRESHOLDS)
HEDGES = tuple(Hedge(flatness, unsure) for flatness in FLATNESSES for unsure in UNSURES)
WRITERS = tuple(
    Hedge(flatness, unsure, sharpness)
    for sharpness in SHARPNESSES
    for flatness in (0.3, 1.0)
    for unsure in (*UNSURES, 1.0)
)
"""Hedges of tasks that write: a text by a mixture is seldom anybody's, so much sharper ones too."""
RULE_TRIALS = len(RULES) + len(GAMMAS)
ASKED: Mapping[str, tuple[Sees, ...]] = {"glider": ("instruction",), DEFAULT: ("input", "choices")}
"""What a preset's constants are tried with."""
WRITING: tuple[Sees, ...] = ("input", "instruction")
"""The same where all tasks write: who asks for a text offers no choices."""


def calibrate_rule(
    trial: Trial, constants: Calibration, tasks: Sequence[Task], told: Told = lambda: None
) -> Calibration:
    """The global rule's p, beta and gamma of the best accuracy, asked with an unseen instruction.

    p and beta are tried together, then gamma at the best of them. The first of equals wins, so the
    paper's values win a tie.

    Args:
        told: called after each trial.
    """

    def accuracy(rule: Rule) -> float:
        found = trial.accuracy(constants.model_copy(update=asdict(rule)), tasks, "glider")
        told()
        return found["instruction"]

    best = max(RULES, key=accuracy)
    best = max((replace(best, gamma=gamma) for gamma in GAMMAS), key=accuracy)
    return constants.model_copy(update=asdict(best))


def calibrate_hedge(
    trial: Trial, constants: Calibration, tasks: Sequence[Task],
    without: Callable[[str], Iterable[Built]], told: Told = lambda: None,
) -> Calibration:  # fmt: skip
    """How sharp a mix is, and how flat and how strong for a query that no expert fits.

    Tasks count half with their own expert there and half without: what helps a query that nobody
    fits must not cost one that somebody does. Without means once with those that are near, and once
    without the nearest: a query that nobody fits may be like another task's, or like no one's.

    Args:
        without: from an expert's id to libraries that lack it. told: called after each task.
    """
    hedges = WRITERS if writes(tasks) else HEDGES
    total = dict.fromkeys(hedges, 0.0)
    for task in tasks:
        lacking = list(without(task.name))
        for built, share in [(None, 1.0), *((b, 1 / len(lacking)) for b in lacking)]:
            for hedge in hedges:
                tried = constants.model_copy(update=asdict(hedge))
                found = trial.accuracy(tried, [task], DEFAULT, built)
                total[hedge] += share * sum(found.values())
        told()
    return constants.model_copy(update=asdict(max(hedges, key=total.__getitem__)))


def calibrate_answers(
    trial: Trial, constants: Calibration, tasks: Sequence[Task], told: Told = lambda: None
) -> Calibration:
    """How sure answers are, see `server.temperature`; what writes knows no temperature of choices.

    Args:
        told: called after each task.
    """
    if isinstance(trial.engine.backbone, LanguageModel):
        for _ in tasks:
            told()
        return constants
    routing = trial.engine.routing
    with routing.trying(routing.current().under(constants)):
        found = fit_temperature(trial.engine, tasks, trial.cards, PER_TASK, told)
    return constants.model_copy(update={"temperature": found})


@dataclass(frozen=True)
class Trial:
    """Asks set-aside questions under other constants.

    Texts that are to be written count by how likely they are.
    """

    engine: Engine
    cards: Mapping[str, TaskCard]

    def accuracy(
        self, constants: Calibration, tasks: Sequence[Task], router: str, built: Built | None = None
    ) -> dict[Sees, float]:
        """Mean accuracy over tasks, by what the router sees; 0 where nothing is set aside.

        Args:
            built: the library that is asked; None for the one in force.
        """
        routing, found = self.engine.routing, dict[Sees, float]()
        with routing.trying((built or routing.current()).under(constants)):
            for sees in WRITING if router == DEFAULT and writes(tasks) else ASKED[router]:
                result = measure(
                    self.engine, tasks, [router], sees, self.cards, PER_TASK, aside=True,
                    written=likelihoods,
                )  # fmt: skip
                found[sees] = result["means"][router] or 0.0
        return found


def writes(tasks: Sequence[Task]) -> bool:
    """Whether all the tasks write their answers."""
    return bool(tasks) and all(task.writes for task in tasks)
