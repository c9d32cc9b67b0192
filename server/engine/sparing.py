"""A batch that fails as a whole is run again in parts: who is innocent is answered."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence

from experts.errors import SystemExhausted
from experts.exhaustion import as_exhausted
from server.engine.messages import Sample
from server.engine.queue import Result

log = logging.getLogger("sailplane.engine")


Run = Callable[[Sequence[Sample]], Sequence[Result]]


def run_sparing(run: Run, samples: Sequence[Sample]) -> Sequence[Result]:
    """What `run` gives for these samples; an error in the place of one that it fails on."""
    try:
        return run(samples)
    except Exception as raised:
        error = as_exhausted(raised)
        if isinstance(error, SystemExhausted):
            log.warning("there is no memory for a batch of %d: %s", len(samples), raised)
            return _halves(run, samples, error)
        log.exception("the engine failed on a batch of %d", len(samples))
        if len(samples) == 1:
            return [error]
        return [result for sample in samples for result in run_sparing(run, [sample])]


def _halves(run: Run, samples: Sequence[Sample], error: SystemExhausted) -> Sequence[Result]:
    """In smaller batches, as long as there is memory for any of them."""
    if len(samples) == 1:
        return [error]
    middle = len(samples) // 2
    first = run_sparing(run, samples[:middle])
    if all(isinstance(result, SystemExhausted) for result in first):
        return [*first, *[error] * (len(samples) - middle)]
    return [*first, *run_sparing(run, samples[middle:])]
