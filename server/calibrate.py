"""Set a library's constants: on examples set aside before training, and by the engine that serves.

First the metric, by which inputs are compared, and what each expert's inputs are by it; then the
weights of the evidence and what makes it sure; last the numbers that only answers can tell.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass, replace
from functools import partial
from itertools import product

import torch
from torch import Tensor

from experts.artefacts import Artefacts
from experts.backbones import TextEncoder
from experts.manifest import TaskCard
from experts.statements import StatementMap, read_statements
from experts.training.data import Task
from experts.writing import write_artefacts
from routers.calibration import Calibration
from routers.catalogue import Catalogue
from routers.fitting.calibrate import Without, ask, calibrate_views
from routers.fitting.confidence import fit_confidence
from routers.fitting.inputs import mean_and_spread
from routers.fitting.statements import fit_statement_map
from routers.fitting.variation import Variation
from routers.metric import Metric
from server.engine.run import Engine
from server.engine.view import calibration_of, routed_of
from server.evaluate import Sees, measure

THRESHOLDS = (0.8, 0.6, 0.95)
BETAS = (3.0, 10.0, 30.0)
GAMMAS = (100.0, 30.0, 300.0)
FLATNESSES = (0.15, 0.3, 0.6)
UNSURES = (0.5, 0.7)
PER_TASK = 24
CALIBRATING = "calibrating"
"""The version of constants whose metric is newer than they are: until the run ends."""
MOST_INPUTS = 2000
"""Training inputs of a task that are looked at."""
Told = Callable[[], object]
Stage = Callable[[str, int], AbstractContextManager[Told]]
"""From what is done next, and in how many steps, to a context that shows it; told of each step."""


@dataclass(frozen=True)
class Rule:
    """One trial of the global rule's constants."""

    threshold: float
    beta: float
    gamma: float = GAMMAS[0]


@dataclass(frozen=True)
class Hedge:
    """One trial of how experts are mixed where none fits."""

    flatness: float
    unsure: float


RULES = tuple(Rule(p, beta) for beta in BETAS for p in THRESHOLDS)
HEDGES = tuple(Hedge(flatness, unsure) for flatness in FLATNESSES for unsure in UNSURES)
RULE_TRIALS = len(RULES) + len(GAMMAS)


def calibrate(
    engine: Engine, tasks: Sequence[Task], stage: Stage, *, words: bool = True
) -> Calibration:
    """Fit the constants of the engine's library, and write them there.

    Args:
        tasks: those of its experts; of each, training inputs and what is set aside are looked at.
        words: fit also what needs more than inputs and choices: how statements are placed on label
            sets, and the global rule. Else the library has no statement map, and the rule is the
            paper's.
    """
    library = engine.library
    cards = {id: entry.manifest for id, entry in library.entries.items()}
    with stage("Features of training inputs", len(tasks)) as step:
        features = features_of(engine.backbone, tasks, step)
    with stage("Fitting the metric" + " and the statement map" * words, 1) as step:
        variation = Variation.of(features)
        read = partial(read_statements, engine.backbone)
        placing = fit_statement_map(list(cards.values()), read) if words else None
        tensors = tensors_of(placing, variation.metric())
        former = calibration_of(library.calibration)
        former = former.model_copy(update={"version": CALIBRATING, "reference": {}})
        library.write_calibration(former.model_dump(mode="json"), tensors)
        refit_inputs(engine, features, variation.metric())
        step()
    with stage("Asking set-aside questions in words taken out of the artefacts", 1) as step:
        constants = evidence_constants(engine, variation, tasks, cards)
        step()
    trials = len(HEDGES) + RULE_TRIALS * words
    with stage("Answering under other constants", trials) as step:
        if words:
            constants = calibrate_rule(engine, constants, tasks, cards, step)
        constants = calibrate_hedge(engine, constants, tasks, cards, step)
    constants = constants.model_copy(update={"version": version_of(constants, tensors)})
    library.write_calibration(constants.model_dump(mode="json"), tensors)
    return constants


def features_of(
    backbone: TextEncoder, tasks: Sequence[Task], told: Told = lambda: None
) -> dict[str, Tensor]:
    """Features (M, F) of each task's training inputs.

    Args:
        told: called after each task.
    """
    found: dict[str, Tensor] = {}
    for task in tasks:
        with torch.inference_mode():
            texts = [e.input for e in task.train[:MOST_INPUTS]]
            found[task.name] = backbone.features(texts).cpu()
        told()
    return found


def refit_inputs(engine: Engine, features: Mapping[str, Tensor], metric: Metric) -> None:
    """Have every expert's inputs described by the metric; those that are so already stay."""
    with engine.changing():
        for id, feature_MF in features.items():
            entry = engine.library.get(id)
            before = entry.read_artefacts()
            inputs = mean_and_spread(feature_MF, metric)
            told = replace(before, inputs=inputs, seen=len(feature_MF))
            if before.inputs is None or not _is_same(before, told):
                write_artefacts(entry, told)
        engine.library.refresh()


def _is_same(before: Artefacts, told: Artefacts) -> bool:
    """Whether artefacts tell the same of inputs, as they are stored."""
    assert before.inputs is not None
    assert told.inputs is not None
    return before.seen == told.seen and torch.equal(before.inputs.half(), told.inputs.half())


def evidence_constants(
    engine: Engine, variation: Variation, tasks: Sequence[Task], cards: Mapping[str, TaskCard]
) -> Calibration:
    """Weights of the views and of confidence, by this embedder; the rest keeps its defaults."""
    metric = variation.metric()
    catalogue = _catalogue(engine, metric)
    asked = ask(
        engine.backbone, engine.embedder, catalogue, cards,
        {t.name: t.aside for t in tasks}, _without(engine, variation),
    )  # fmt: skip
    embedder = None if engine.embedder is engine.backbone else engine.embedder.fingerprint
    return fit_confidence(asked, Calibration(views=calibrate_views(asked), embedder=embedder))


def _without(engine: Engine, variation: Variation) -> Without:
    return lambda id: _catalogue(engine, variation.metric(without=id))


def _catalogue(engine: Engine, metric: Metric) -> Catalogue:
    """The library's routable experts by another metric."""
    wordings = engine.routing.view.wordings
    entries = [e for id in engine.routing.catalogue.ids if (e := engine.library.get(id))]
    routed = [
        routed_of(e.manifest, wordings.of(e.manifest, e.read_artefacts()), metric) for e in entries
    ]
    return Catalogue(routed, metric=metric)


def calibrate_rule(
    engine: Engine,
    constants: Calibration,
    tasks: Sequence[Task],
    cards: Mapping[str, TaskCard],
    told: Told = lambda: None,
) -> Calibration:
    """The global rule's p, beta and gamma of the best accuracy, asked with an unseen instruction.

    p and beta are tried together, then gamma at the best of them. The first of equals wins, so the
    paper's values win a tie.

    Args:
        told: called after each trial.
    """
    trial = _Trial(engine, constants, tasks, cards, told)

    def accuracy(rule: Rule) -> float:
        return trial.accuracy(asdict(rule), "glider", ("instruction",), (False,))

    best = max(RULES, key=accuracy)
    best = max((replace(best, gamma=gamma) for gamma in GAMMAS), key=accuracy)
    return constants.model_copy(update=asdict(best))


def calibrate_hedge(
    engine: Engine,
    constants: Calibration,
    tasks: Sequence[Task],
    cards: Mapping[str, TaskCard],
    told: Told = lambda: None,
) -> Calibration:
    """How flat and how strong a mix is for a query that no expert fits.

    Tasks count half with their own expert there and half without: what helps a query that nobody
    fits must not cost one that somebody does.

    Args:
        told: called after each trial.
    """
    trial = _Trial(engine, constants, tasks, cards, told)

    def accuracy(hedge: Hedge) -> float:
        return trial.accuracy(asdict(hedge), "sailplane", ("input", "choices"), (False, True))

    return constants.model_copy(update=asdict(max(HEDGES, key=accuracy)))


@dataclass(frozen=True)
class _Trial:
    """Asks set-aside questions under other constants."""

    engine: Engine
    constants: Calibration
    tasks: Sequence[Task]
    cards: Mapping[str, TaskCard]
    told: Told

    def accuracy(
        self, changed: Mapping[str, float], router: str, conditions: Sequence[Sees],
        left_out: Sequence[bool],
    ) -> float:  # fmt: skip
        """Mean accuracy over tasks and conditions; 0 where nothing is set aside."""
        means: list[float] = []
        constants = self.constants.model_copy(update=dict(changed))
        with self.engine.routing.trying(self.engine.routing.current().under(constants)):
            for sees, without in product(conditions, left_out):
                result = measure(
                    self.engine, self.tasks, [router], sees, self.cards, PER_TASK, aside=True,
                    left_out=without,
                )  # fmt: skip
                means.append(result["means"][router] or 0.0)
        self.told()
        return sum(means) / len(means)


def tensors_of(placing: StatementMap | None, metric: Metric | None) -> dict[str, Tensor]:
    """The library's statement map and metric as they are stored."""
    tensors = {} if metric is None else metric.tensors()
    if placing is None:
        return tensors
    return tensors | {
        "statement_map": placing.map_FD.half(),
        "statement_shift": placing.shift_D.half(),
        "statement_scale": torch.tensor(placing.scale),
    }


def version_of(constants: Calibration, tensors: Mapping[str, Tensor]) -> str:
    """A name for exactly these constants and tensors."""
    bare = constants.model_copy(update={"version": "", "tensors": None})
    text = bare.model_dump_json(exclude={"reference"})
    digest = hashlib.sha256(text.encode())
    for name, tensor in sorted(tensors.items()):
        digest.update(name.encode() + tensor.float().numpy().tobytes())
    return digest.hexdigest()[:12]
