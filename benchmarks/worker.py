"""The in-process side of a comparison: reads what to measure from stdin, answers with a rate.

Each line is `{"at": first text, "batch": mean batch size, "seconds": how long}`; the answer is
samples per second of the subject alone, with the making of samples outside the clock.
"""

from __future__ import annotations

import asyncio
import json
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from benchmarks.material import decision, question, text, write_bodies
from benchmarks.places import LIBRARY
from experts.backbones.demo import demo_path

if TYPE_CHECKING:
    from server.batch.lines import Reply


def engine(threads: int) -> Callable[[Sequence[int]], float]:
    """The engine that `sailplane serve` runs, without the server around it."""
    from server.build import build_engine
    from server.engine.messages import Outcome, Sample
    from server.settings import read_settings

    subject = build_engine(read_settings({"library": LIBRARY, "threads": threads}).settings)

    def run(indices: Sequence[int]) -> float:
        samples = [Sample(text(i), question(i)) for i in indices]
        begun = time.perf_counter()
        results = subject.run(samples)
        spent = time.perf_counter() - begun
        for result in results:
            if not isinstance(result, Outcome):
                raise result
        return spent

    return run


def batch(threads: int) -> Callable[[Sequence[int]], float]:
    """A run of `sailplane batch` from file to file, once the engine is built."""
    from server.batch.output import open_output
    from server.batch.plan import read_plan, resume
    from server.batch.run import Tally, run_batch
    from server.build import build_service
    from server.engine.service import EngineService
    from server.settings import read_settings

    settings = read_settings({"library": LIBRARY, "threads": threads}).settings
    subject = build_service(settings, max_queue=sys.maxsize)
    folder = Path(tempfile.mkdtemp())

    def run(indices: Sequence[int]) -> float:
        service = EngineService(subject.engine, max_queue=sys.maxsize, max_batch=settings.max_batch)
        source, target = folder / "in.jsonl", folder / f"{indices[0]}.jsonl"
        write_bodies(source, len(indices), lambda i: _line(indices[i]))
        tally = Tally()
        begun = time.perf_counter()
        with open_output(target) as output:
            plan = read_plan(source, settings.body_limit)
            output.begin(resume(plan, output.file))

            def put(reply: Reply) -> None:
                output.write(reply.written)
                tally.add(reply)

            asyncio.run(run_batch(service, plan.tasks(), put))
        spent = time.perf_counter() - begun
        if tally.answered != len(indices):
            raise RuntimeError(f"The batch failed: {dict(tally.failed)}")
        return spent

    return run


def sentence_transformers(threads: int) -> Callable[[Sequence[int]], float]:
    """sentence-transformers on the same backbone: one pass, no routing, no experts."""
    from sentence_transformers import SentenceTransformer

    torch.set_num_threads(threads)
    subject = SentenceTransformer(demo_path(), device="cpu")

    def run(indices: Sequence[int]) -> float:
        texts = [text(i) for i in indices]
        begun = time.perf_counter()
        subject.encode(texts, batch_size=len(texts), show_progress_bar=False)
        return time.perf_counter() - begun

    return run


def _line(index: int) -> dict[str, object]:
    """A line of a batch: the request that the server is sent."""
    said = {"custom_id": str(index), "method": "POST", "url": "/v1/decisions"}
    return {**said, "body": decision(index)}


SUBJECTS = {"engine": engine, "batch": batch, "sentence-transformers": sentence_transformers}


def rate(run: Callable[[Sequence[int]], float], at: int, batch: float, seconds: float) -> float:
    """Samples per second over batches whose sizes are `batch` on average."""
    spent, done = 0.0, 0
    for number in count(1):
        upto = int(number * batch)
        spent += run(range(at + done, at + upto))
        done = upto
        if spent >= seconds:
            break
    return done / spent


def main() -> None:
    """Serve measurements until stdin ends."""
    subject, threads = sys.argv[1:]
    run = SUBJECTS[subject](int(threads))
    for line in sys.stdin:
        sys.stdout.write(f"{rate(run, **json.loads(line))}\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
