"""A batch that fails as a whole is run again, sample by sample: who is innocent is answered."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence

from experts.exhaustion import as_exhausted
from server.engine.messages import Sample
from server.engine.queue import Result

log = logging.getLogger("sailplane.engine")


def run_sparing(
    run: Callable[[Sequence[Sample]], Sequence[Result]], samples: Sequence[Sample]
) -> Sequence[Result]:
    """What `run` gives for these samples; an error in the place of one that it fails on."""
    try:
        return run(samples)
    except Exception as error:
        log.exception("the engine failed on a batch of %d", len(samples))
        if len(samples) == 1:
            return [as_exhausted(error)]
        return [result for sample in samples for result in run_sparing(run, [sample])]
