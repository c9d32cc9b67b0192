"""Set a library's constants: on examples set aside before training, and by the engine that serves.

First the metric, by which inputs are compared, and what each expert's inputs are by it; then the
weights of the evidence and what makes it sure; last the numbers that only answers can tell.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from functools import partial

import torch
from torch import Tensor

from experts.backbones import Backbone
from experts.errors import ExpertError
from experts.manifest import TaskCard
from experts.statements import StatementMap, read_statements
from experts.training.data import Task
from routers.calibration import Calibration, Reference
from routers.catalogue import Catalogue
from routers.fitting.calibrate import ask, calibrate_views
from routers.fitting.confidence import fit_confidence
from routers.fitting.statements import fit_statement_map
from routers.fitting.variation import Variation
from routers.metric import Metric
from server.aside import Aside, Inputs
from server.engine.run import Engine
from server.engine.view import Built
from server.trials import (
    RULE_TRIALS,
    Told,
    Trial,
    calibrate_answers,
    calibrate_hedge,
    calibrate_rule,
)

log = logging.getLogger("sailplane.library")

MOST_INPUTS = 2000
"""Training inputs of a task that are looked at."""
Stage = Callable[[str, int], AbstractContextManager[Told]]
"""From what is done next, and in how many steps, to a context that shows it; told of each step."""
Refer = Callable[[Calibration], Mapping[str, Reference]]
"""How set-aside questions are routed by constants, while the engine routes by them."""


def calibrate(
    engine: Engine, tasks: Sequence[Task], stage: Stage, *, words: bool = True,
    refer: Refer = lambda _: {},
) -> Calibration:  # fmt: skip
    """Fit the constants of the engine's library, and write them there once all is known.

    Until then the library stays as it is, byte for byte: whoever stops this has lost time alone.

    Args:
        tasks: those of its experts; of each, training inputs and what is set aside are looked at.
        words: fit also what needs more than inputs and choices: how statements are placed on label
            sets, and the global rule. Else the library has no statement map, and the rule is the
            paper's.
        refer: see `Refer`.

    Raises:
        UnknownExpert: a task's expert is not there, or cannot be served.
    """
    cards = {id: entry.manifest for id, entry in engine.library.entries.items()}
    for task in tasks:
        engine.library.get(task.name)
    with stage("Features of training inputs", len(tasks)) as step:
        features = features_of(engine.backbone, tasks, step)
    with stage("Fitting the metric" + " and the statement map" * words, 1) as step:
        variation = Variation.of(features)
        metric = variation.metric()
        told = {id: Inputs.of(f, metric) for id, f in features.items()}
        read = partial(read_statements, engine.backbone)
        placing = fit_statement_map(list(cards.values()), read) if words else None
        tensors = tensors_of(placing, metric)
        aside = Aside(engine.routing.current(), told)
        tried = aside.built(tensors, engine.backbone.width, engine.backbone.feature_width)
        step()
    with stage("Asking set-aside questions in words taken out of the artefacts", 1) as step:
        constants = evidence_constants(engine, aside, variation, features, tasks, cards)
        del features  # the largest of all there is here
        step()
    trials, trial = 2 * len(tasks) + RULE_TRIALS * words, Trial(engine, cards)
    without = partial(_without, aside, tried, variation)
    with stage("Answering under other constants", trials) as step, engine.routing.trying(tried):
        if words:
            constants = calibrate_rule(trial, constants, tasks, step)
        constants = calibrate_hedge(trial, constants, tasks, without, step)
        constants = calibrate_answers(trial, constants, tasks, step)
    constants = constants.model_copy(update={"version": version_of(constants, tensors)})
    with engine.routing.trying(tried.under(constants)):
        constants = constants.model_copy(update={"reference": refer(constants)})
    with stage("Writing", len(told)) as step:
        write(engine, told, constants, tensors, step)
    return constants


def _without(aside: Aside, built: Built, variation: Variation, id: str) -> Iterator[Built]:
    """The library as if an expert had never joined, and as if its nearest had not either."""
    gone = (id,)
    yield aside.without(gone, built, variation.metric(without=gone))
    if (nearest := variation.nearest(id)) is not None:
        gone = (id, nearest)
        yield aside.without(gone, built, variation.metric(without=gone))


def features_of(
    backbone: Backbone, tasks: Sequence[Task], told: Told = lambda: None
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


def write(
    engine: Engine, told: Mapping[str, Inputs], constants: Calibration,
    tensors: Mapping[str, Tensor], step: Told = lambda: None,
) -> None:  # fmt: skip
    """Give the library's experts their inputs, where they say others, and it its constants.

    The constants come last. Who is stopped in between leaves sound experts and the old constants,
    by which inputs told by the new metric are nearly the same: the mean of an expert's inputs does
    not depend on it.

    An expert that changes gets its next version, as with every refit: a version names one set of
    files for good, and whoever pinned the former one still finds it.

    Args:
        step: called after each expert.
    """
    library = engine.library
    with engine.changing():
        library.refresh()  # others may have changed it meanwhile
        for id, inputs in told.items():
            try:
                entry = library.get(id)
                before = entry.read_artefacts()
                if not inputs.are_in(before):
                    library.refit(entry, inputs.put_into(before))
            except ExpertError as error:
                log.warning("expert %s stays as it is: %s", id, error.message)
            step()
        library.write_calibration(constants.model_dump(mode="json"), tensors)


def evidence_constants(
    engine: Engine, aside: Aside, variation: Variation, features: Mapping[str, Tensor],
    tasks: Sequence[Task], cards: Mapping[str, TaskCard],
) -> Calibration:  # fmt: skip
    """Weights of the views and of confidence, by this embedder; the rest keeps its defaults.

    Args:
        features: of the training inputs of each task.
    """

    def without(id: str) -> Catalogue:
        return aside.catalogue(variation.metric(without=(id,)))

    def later(ids: Collection[str]) -> Catalogue:
        metric = variation.metric(without=ids)
        return aside.catalogue(metric, {id: Inputs.of(features[id], metric) for id in ids})

    asked = ask(
        engine.backbone, engine.embedder, aside.catalogue(variation.metric()), cards,
        {t.name: t.aside for t in tasks}, without, later,
    )  # fmt: skip
    constants = Calibration(
        views=calibrate_views(asked),
        embedder=None if engine.embedder is engine.backbone else engine.embedder.fingerprint,
        fitted_on=tuple(sorted(features)),
    )
    return fit_confidence(asked, constants)


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
