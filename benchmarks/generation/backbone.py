"""Train a backbone on the drills, with checkpoints on the way; a finished one is only opened.

Knows no expert.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, AutoModelForSeq2SeqLM, PreTrainedModel

from benchmarks.generation import drills
from benchmarks.generation.checkpoints import Family, Size, encode_batch, make_model, make_tokenizer
from benchmarks.generation.checkpoints import save as save_backbone
from benchmarks.generation.learning import Course, Learner, batches
from experts.atomic import atomic_folder

COURSES: dict[Family, Course] = {
    "causal": Course(steps=2600, batch=64, rate=3e-3),
    "seq2seq": Course(steps=1700, batch=64, rate=3e-3),
}
KEPT_EVERY = 200
"""Steps between two checkpoints."""
Told = Callable[[int, float], object]
"""Told the steps done and the last loss."""


def train_backbone(
    family: Family,
    folder: Path,
    told: Told,
    course: Course | None = None,
    size: Size | None = None,
    seed: int = 0,
) -> None:
    """Have a trained backbone at `folder`; an interrupted training goes on from its checkpoint.

    The checkpoint stands beside the folder, as `<name>.partial.pt`, until the training is done.
    """
    if folder.exists():
        return
    folder.parent.mkdir(parents=True, exist_ok=True)
    partial = folder.with_name(f"{folder.name}.partial.pt")
    model, tokenizer = make_model(family, size, seed=seed), make_tokenizer(family)
    model.set_attn_implementation("eager")  # texts are short: it is the faster one to train with
    learner = Learner(model, course or COURSES[family])
    if partial.exists():
        learner.take_up(torch.load(partial, weights_only=True))
    stream = batches(
        lambda pool: drills.stream(f"{seed}/{pool}"), learner.course.batch, learner.done
    )
    while learner.done < learner.course.steps:
        told(learner.done, learner.step(encode_batch(family, tokenizer, next(stream))))
        if learner.done % KEPT_EVERY == 0:
            _keep(learner.state(), partial)
    with atomic_folder(folder) as fresh:
        save_backbone(model, family, fresh)
    partial.unlink(missing_ok=True)


def open_backbone(family: Family, folder: Path) -> PreTrainedModel:
    """A trained backbone."""
    auto = AutoModelForCausalLM if family == "causal" else AutoModelForSeq2SeqLM
    return auto.from_pretrained(folder)


def _keep(state: dict[str, object], path: Path) -> None:
    fresh = path.with_suffix(".fresh")
    torch.save(state, fresh)
    os.replace(fresh, path)
