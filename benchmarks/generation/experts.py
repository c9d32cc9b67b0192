"""Train one LoRA expert a task on a frozen backbone, in PEFT's own form on disk.

An expert sees its task's inputs and outputs and nothing else: no instruction, no tag. Knows no
other expert.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch
from peft import LoraConfig, PeftModel, TaskType, get_peft_model

from benchmarks.generation.backbone import Told, open_backbone
from benchmarks.generation.checkpoints import Family, encode_batch, make_tokenizer
from benchmarks.generation.learning import Course, Learner, batches, exact_match
from benchmarks.generation.tasks import TASKS, Task
from experts.atomic import atomic_folder

RANK, ALPHA = 8, 16
COURSE = Course(steps=250, batch=32, rate=5e-3, warmup=20, matrices="adamw")
LONGER = {"add-numbers": 2}
"""Tasks that take so many times the steps."""
TARGETS: dict[Family, tuple[str, ...]] = {
    "causal": ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"),
    "seq2seq": ("q", "k", "v", "o", "wi_0", "wi_1", "wo"),
}
"""Every linear layer but the one that gives the logits."""
_TYPES: dict[Family, TaskType] = {
    "causal": TaskType.CAUSAL_LM,
    "seq2seq": TaskType.SEQ_2_SEQ_LM,
}


def train_expert(
    family: Family,
    task: Task,
    backbone: Path,
    folder: Path,
    told: Told,
    course: Course = COURSE,
    seed: int = 0,
) -> None:
    """Have a task's expert at `folder`; one that is there is left as it is."""
    if folder.exists():
        return
    frozen, tokenizer = open_backbone(family, backbone), make_tokenizer(family)
    frozen.set_attn_implementation("eager")
    config = LoraConfig(
        task_type=_TYPES[family], r=RANK, lora_alpha=ALPHA, target_modules=list(TARGETS[family])
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = get_peft_model(frozen, config)
    learner = Learner(model, course_of(task, course))
    stream = batches(lambda pool: task.stream(f"{seed}/{pool}"), course.batch)
    while learner.done < learner.course.steps:
        told(learner.done, learner.step(encode_batch(family, tokenizer, next(stream))))
    _write(model, folder)


def course_of(task: Task, course: Course = COURSE) -> Course:
    """The course of a task, of the one that most take."""
    return replace(course, steps=course.steps * LONGER.get(task.id, 1))


def _write(model: PeftModel, folder: Path) -> None:
    """As PEFT writes it, less the model card and the place where the backbone lay."""
    with atomic_folder(folder) as fresh:
        model.save_pretrained(fresh, save_embedding_layers=False)
        (fresh / "README.md").unlink()
        path = fresh / "adapter_config.json"
        config = json.loads(path.read_text("utf-8")) | {"base_model_name_or_path": None}
        config["target_modules"].sort()
        path.write_text(json.dumps(config, indent=2, sort_keys=True) + "\n", "utf-8")


def score(
    family: Family, backbone: Path, adapters: Path, ids: Sequence[str], tests: int
) -> dict[str, dict[str, float]]:
    """Exact match of greedy decoding on each task: of no expert (`bare`), and of each expert.

    Returns:
        The share of `tests` inputs answered right, by answerer, then by task.
    """
    tokenizer, asked = make_tokenizer(family), {id: TASKS[id].tests(tests) for id in ids}
    bare = open_backbone(family, backbone)
    found = {"bare": {t: exact_match(bare, family, tokenizer, asked[t]) for t in ids}}
    for id in ids:
        model = PeftModel.from_pretrained(open_backbone(family, backbone), adapters / id)
        found[id] = {t: exact_match(model, family, tokenizer, asked[t]) for t in ids}
    return found
