"""What the benchmarks ask: texts and questions made here, experts of the demo library.

No data set is needed. Everything follows from fixed seeds, so that runs can be compared.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from pathlib import Path

import torch
from torch.nn import functional as F

from benchmarks.places import LIBRARY
from experts.backbones import TextEncoder
from experts.kinds import KINDS
from experts.library import Library
from experts.loader import load_expert
from experts.weights import ExpertWeights
from server.engine.messages import Choice, Question

EXPERTS, RANK = 18, 8
PROSE = (
    "the a an old new small large green quiet bright early late north south river city market "
    "team game player coach report company price share music film book story school teacher "
    "student doctor patient winter summer morning evening train road bridge house garden water "
    "fire stone paper letter number question answer reason because although while before after "
    "opened closed found lost made sold bought moved played wrote read heard said asked told "
    "gave took left came went grew fell built wanted needed hoped feared happy angry sad proud "
    "never always often almost slowly quickly again today yesterday tomorrow against between"
)
WORDS = PROSE.split()
QUESTIONS: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("What is this news article about?", ("world", "sports", "business", "science")),
    ("Which emotion does the writer feel?", ("anger", "joy", "optimism", "sadness")),
    ("What kind of thing does the question ask for?", ("person", "place", "number", "entity")),
    ("What does the user want?", ("play music", "book a table", "get the weather", "rate a book")),
)


def text(index: int) -> str:
    """The text of an index, about 20 tokens long; other indices give other texts."""
    rng = random.Random(index)
    return " ".join(rng.choices(WORDS, k=rng.randint(15, 21)))


def question(index: int) -> Question:
    """A choice of 4 labels, of a few that take turns: a batch of them mixes experts."""
    instructions, labels = QUESTIONS[index % len(QUESTIONS)]
    return Question("choice", instructions, tuple(Choice(label) for label in labels))


def decision(index: int, routing: dict[str, object] | None = None) -> dict[str, object]:
    """The body of a decisions request: one question about one text."""
    asked = question(index)
    choices = [{"value": c.value} for c in asked.choices]
    body: dict[str, object] = {
        "model": "auto",
        "input": text(index),
        "questions": [{"type": "choice", "instructions": asked.instructions, "choices": choices}],
    }
    return body | ({"routing": routing} if routing else {})


def write_bodies(path: Path, count: int, body: Callable[[int], object]) -> Path:
    """A file with one JSON body a line, for the client."""
    path.write_text("".join(json.dumps(body(i)) + "\n" for i in range(count)), "utf-8")
    return path


def library_experts(backbone: TextEncoder) -> list[ExpertWeights]:
    """The experts of the demo library, made up to 18, each with a gate at every site.

    What the library lacks is drawn at random: a forward pass costs the same.
    """
    rng = torch.Generator().manual_seed(0)
    entries = Library.open(LIBRARY, fingerprint=backbone.fingerprint).entries.values()
    loaded = [
        load_expert(e, backbone.sites, dtype=backbone.dtype, device=backbone.device)
        for e in list(entries)[:EXPERTS]
    ]
    made = [_random_expert(backbone, f"random-{i}", rng) for i in range(EXPERTS - len(loaded))]
    return [_with_gates(e, rng) for e in (*loaded, *made)]


def _random_expert(backbone: TextEncoder, id: str, rng: torch.Generator) -> ExpertWeights:
    lora = KINDS["lora"]
    sites = lora.initial(lora.target_sites(backbone.sites.values()), rank=RANK, generator=rng)
    for tensors in sites.values():
        tensors["B"].normal_(std=0.01, generator=rng)
    return ExpertWeights(id, lora.name, lora.group(sites), sites)


def _with_gates(expert: ExpertWeights, rng: torch.Generator) -> ExpertWeights:
    """The expert itself if it has gates, or with random ones."""
    if "gate" in expert.vectors:
        return expert
    gates = {
        site: F.layer_norm(torch.randn(width, generator=rng), (width,))
        for site, width in ((s, t["A"].shape[1]) for s, t in expert.sites.items())
    }
    return ExpertWeights(
        expert.id, expert.kind, expert.group, expert.sites, {**expert.vectors, "gate": gates},
        expert.inert, expert.version,
    )  # fmt: skip
