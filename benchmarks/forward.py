"""One forward pass with experts in force, against the bare backbone and against PEFT.

A mixed batch of 32 samples x 64 tokens over 18 experts, every linear layer a site. "Cold" gathers
the experts' tensors into stacks anew, "warm" finds the stacks in the cache; both build the mix.
"""

from __future__ import annotations

import random
import warnings
from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

from benchmarks.choose import Shape, seconds
from benchmarks.figures import Figure, at_least, at_most, reported
from benchmarks.material import EXPERTS, library_experts
from benchmarks.peft_merge import PeftMerge
from benchmarks.timing import take_turns
from experts.backbones import TextEncoder, open_backbone
from experts.mix import Part, RowMix, build_mix
from experts.stacks import StackCache
from experts.weights import ExpertWeights
from routers.token import TOKEN_ROUTERS

SAMPLES, TOKENS = 32, 64
PAIR, CANDIDATES, TOP_K = 2, 8, 2
PEFT_SAMPLES = 4
MERGE_LIMIT, TOKEN_LIMIT, PEFT_TARGET = 1.25, 1.7, 4.0
MERGE, TOKEN, ALL = "merge of 2", "token mode, 8 candidates, top 2", "phatgoose over all 18"


def run(quick: bool) -> list[Figure]:
    """Passes as ratios to the bare pass, merging against PEFT, and the strategies by themselves."""
    rounds = 2 if quick else 15
    backbone = open_backbone("demo")
    experts = library_experts(backbone)
    with torch.inference_mode():
        # PEFT warns of transformers' next version, and whenever an active adapter is deleted.
        warnings.filterwarnings("ignore", module=r"transformers|peft")
        return [
            *_passes(backbone, experts, rounds),
            *_strategies(rounds),
            *_against_peft(backbone, experts, max(2, rounds // 3)),
        ]


def token_rows(backbone: TextEncoder) -> list[list[int]]:
    """32 rows of 64 random tokens: what a text says does not change what it costs."""
    rng = torch.Generator().manual_seed(0)
    vocabulary: int = backbone.model.config.vocab_size  # type: ignore[union-attr,assignment]
    return torch.randint(1000, vocabulary, (SAMPLES, TOKENS), generator=rng).tolist()


def row_mixes(experts: list[ExpertWeights]) -> dict[str, list[RowMix]]:
    """Per shape of a mix, what each sample asks for; which experts is drawn at random."""
    rng = random.Random(0)
    ids = [e.id for e in experts]

    def routed(candidates: int) -> RowMix:
        parts = (Part(id, 0.0, rng.random()) for id in rng.sample(ids, candidates))
        return RowMix(tuple(parts), per_token=True, top_k=TOP_K)

    def merged() -> RowMix:
        first = rng.uniform(0.3, 0.7)
        one, other = rng.sample(ids, PAIR)
        return RowMix.of({one: first, other: 1 - first})

    return {
        MERGE: [merged() for _ in range(SAMPLES)],
        TOKEN: [routed(CANDIDATES) for _ in range(SAMPLES)],
        ALL: [routed(len(ids)) for _ in range(SAMPLES)],
    }


def mixed_pass(
    backbone: TextEncoder, experts: list[ExpertWeights], mixes: list[RowMix],
    stacks: Callable[[], StackCache],
) -> Tensor:  # fmt: skip
    """What the engine does with a routed batch: gather, build the mix, run."""
    used = {p.expert for row in mixes for p in row.parts}
    gathered = stacks().get([e for e in experts if e.id in used])
    router = TOKEN_ROUTERS["gate"] if mixes[0].per_token else None
    return backbone.encode(token_rows(backbone), build_mix(mixes, gathered, router))


def _passes(backbone: TextEncoder, experts: list[ExpertWeights], rounds: int) -> list[Figure]:
    kept = StackCache()
    cases: dict[str, Callable[[], Tensor]] = {"bare": lambda: backbone.encode(token_rows(backbone))}
    for name, mixes in row_mixes(experts).items():
        cases[f"{name}, cold"] = partial(mixed_pass, backbone, experts, mixes, StackCache)
        cases[f"{name}, warm"] = partial(mixed_pass, backbone, experts, mixes, lambda: kept)
    times = take_turns(cases, rounds)

    def over_bare(name: str) -> tuple[str, float]:
        return f"{name}: pass / bare pass", times.ratio(name, "bare")

    return [
        at_most(*over_bare(f"{MERGE}, cold"), MERGE_LIMIT),
        at_most(*over_bare(f"{TOKEN}, cold"), TOKEN_LIMIT),
        *(reported(*over_bare(f"{name}, warm")) for name in (MERGE, TOKEN)),
        *(reported(*over_bare(f"{ALL}, {state}")) for state in ("cold", "warm")),
        reported("bare pass, ms", times.median("bare") * 1e3),
    ]


def _against_peft(backbone: TextEncoder, experts: list[ExpertWeights], rounds: int) -> list[Figure]:
    """PEFT has one merged adapter at a time: it merges, runs and forgets sample by sample."""
    mixes, rows = row_mixes(experts)[MERGE], token_rows(backbone)
    peft = PeftMerge(experts)
    few = list(zip(rows, mixes, strict=True))[:PEFT_SAMPLES]

    def peft_samples(combination: str) -> None:
        for row, mix in few:
            peft.run(row, {p.expert: p.weight for p in mix.parts}, combination)

    times = take_turns(
        {
            "ours": partial(mixed_pass, backbone, experts, mixes, StackCache),
            "cat": partial(peft_samples, "cat"),
            "linear": partial(peft_samples, "linear"),
        },
        rounds,
    )
    scale = SAMPLES / PEFT_SAMPLES  # both sides per sample
    return [
        at_least("PEFT 'cat' / Sailplane, merge and run, per sample",
                 times.ratio("cat", "ours") * scale, PEFT_TARGET),
        reported("PEFT 'linear' (inexact) / Sailplane, per sample",
                 times.ratio("linear", "ours") * scale),
        reported("PEFT 'cat', ms per sample", times.median("cat") / PEFT_SAMPLES * 1e3),
        reported("Sailplane merging, ms per sample", times.median("ours") / SAMPLES * 1e3),
    ]  # fmt: skip


def _strategies(rounds: int) -> list[Figure]:
    """Every strategy by itself at the shapes above, summed over the three widths of a layer."""
    shapes = {
        MERGE: Shape(SAMPLES, TOKENS, EXPERTS, PAIR, per_token=False),
        TOKEN: Shape(SAMPLES, TOKENS, EXPERTS, CANDIDATES, per_token=True),
        ALL: Shape(SAMPLES, TOKENS, EXPERTS, EXPERTS, per_token=True),
    }
    return [
        reported(f"{name}: low_rank_add {strategy}, ms", spent * 1e3)
        for name, shape in shapes.items()
        for strategy, spent in seconds(shape, rounds).items()
    ]
