"""Training, and exact match; the same for a backbone and for an expert.

Batch number `i` is made from the seed and `i` alone, so that a training that was interrupted goes
on with the batches it would have had. Knows no task and no file.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any, Literal

import torch
from torch import Tensor, nn
from transformers import PreTrainedTokenizerFast

from benchmarks.generation.checkpoints import Family, encode_batch

Example = tuple[str, str]
Stream = Callable[[str], Iterator[Example]]
"""Examples without end from a seed."""
POOL = 16
"""Batches drawn together and cut by length: little padding, and each batch still mixed."""
HASTE = 30
"""How much faster T5's position biases are learnt: they are logits, begin near 0, and point at a
place only once they are several units large. Without it the model is very slow to learn to copy.
"""
JUDGED = 200
"""Examples judged in one pass."""


Precision = Literal["bfloat16", "float32"]


@dataclass(frozen=True)
class Course:
    """How long and how hard to train.

    Attributes:
        matrices: what trains the weights of linear layers; AdamW trains all others. Muon teaches
            a backbone to copy in a tenth of AdamW's steps.
        precision: of the products in a pass. Weights are float32 in any case.
    """

    steps: int
    batch: int
    rate: float
    warmup: int = 100
    matrices: Literal["muon", "adamw"] = "muon"
    precision: Precision = "bfloat16"
    clip: float = 1.0


def batches(stream: Stream, size: int, start: int = 0) -> Iterator[list[Example]]:
    """Batches of `size` from batch number `start` on, without end."""
    number = start
    while True:
        pool = number // POOL
        drawn = list(islice(stream(str(pool)), size * POOL))
        drawn.sort(key=lambda example: len(example[0]) + len(example[1]))
        cut = [drawn[i : i + size] for i in range(0, len(drawn), size)]
        random.Random(pool).shuffle(cut)
        for batch in cut[number % POOL :]:
            yield batch
            number += 1


class Learner:
    """A model in training: one step at a time, with a state that can be kept and taken up."""

    def __init__(self, model: nn.Module, course: Course) -> None:
        """Only parameters that require gradients are trained."""
        self.model, self.course, self.done = model, course, 0
        self._learnt = [p for p in model.parameters() if p.requires_grad]
        self._optimizers = _optimizers(model, course)
        self.model.train()

    def step(self, batch: dict[str, Tensor]) -> float:
        """Learn from one batch; the loss before it."""
        precision = torch.bfloat16
        with torch.autocast("cpu", precision, enabled=self.course.precision == "bfloat16"):
            loss = self.model(**batch).loss
        loss.backward()
        nn.utils.clip_grad_norm_(self._learnt, self.course.clip)
        for optimizer in self._optimizers:
            for group in optimizer.param_groups:
                group["lr"] = self._rate() * group.get("haste", 1)
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        self.done += 1
        return loss.item()

    def _rate(self) -> float:
        """Up in a straight line, then down to nothing in another."""
        rise = (self.done + 1) / self.course.warmup
        fall = (self.course.steps - self.done) / max(1, self.course.steps - self.course.warmup)
        return self.course.rate * min(rise, fall)

    def state(self) -> dict[str, Any]:
        """What `take_up` needs to go on as if nothing had happened."""
        return {
            "model": self.model.state_dict(),
            "optimizers": [optimizer.state_dict() for optimizer in self._optimizers],
            "done": self.done,
        }

    def take_up(self, state: dict[str, Any]) -> None:
        """Go on from `state()` of a learner of the same model and course."""
        self.model.load_state_dict(state["model"])
        for optimizer, kept in zip(self._optimizers, state["optimizers"], strict=True):
            optimizer.load_state_dict(kept)
        self.done = state["done"]


def _optimizers(model: nn.Module, course: Course) -> list[torch.optim.Optimizer]:
    """Muon for the weights of linear layers if the course says so, AdamW for what is left."""
    matrices = [
        module.weight
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear) and not name.endswith("lm_head")
        if module.weight.requires_grad and course.matrices == "muon"
    ]
    places = [
        parameter
        for name, parameter in model.named_parameters()
        if "relative_attention_bias" in name and parameter.requires_grad
    ]
    taken = set(map(id, (*matrices, *places)))
    others = [p for p in model.parameters() if p.requires_grad and id(p) not in taken]
    made: list[torch.optim.Optimizer] = []
    if matrices:
        rule = "match_rms_adamw"  # one rate fits both
        made.append(torch.optim.Muon(matrices, weight_decay=0.01, adjust_lr_fn=rule))
    if others:
        groups = [{"params": others}]
        if places:
            groups.append({"params": places, "haste": HASTE})
        made.append(torch.optim.AdamW(groups, weight_decay=0.0, betas=(0.9, 0.98), fused=True))
    return made


@torch.inference_mode()
def exact_match(
    model: nn.Module,
    family: Family,
    tokenizer: PreTrainedTokenizerFast,
    examples: Sequence[Example],
) -> float:
    """Share of the examples that greedy decoding answers exactly.

    It is found without decoding: greedy decoding gives the answer if and only if, with the answer
    given, the likeliest token at each of its places is the one that stands there.
    """
    model.eval()
    right = 0
    for i in range(0, len(examples), JUDGED):
        batch = encode_batch(family, tokenizer, examples[i : i + JUDGED])
        labels, logits = batch["labels"], model(**batch).logits
        if family == "causal":
            labels, logits = labels[:, 1:], logits[:, :-1]
        hits = (logits.argmax(-1) == labels) | (labels == -100)
        right += int(hits.all(1).sum())
    return right / len(examples)
