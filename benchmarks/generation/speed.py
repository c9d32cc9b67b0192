"""Speed of writing, as ratios: our engine beside itself, beside transformers with PEFT, and vLLM.

One shape, one set of adapters of rank 8 on every linear layer, 64 prompts of 32 tokens, 64 tokens
each, float32, as many cores for everybody. Contenders take turns; a ratio is taken within a turn.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from statistics import median

from benchmarks.figures import Figure, at_least, at_most, reported
from benchmarks.generation import peers
from benchmarks.generation.ours import BARE, Ours, one_each, pairs
from benchmarks.generation.shapes import SHAPES, Shape, adapters, arrivals, checkpoint, prompts
from benchmarks.processes import cores
from routers.types import Selection

EXPERTS, MANY, ROWS, TOKENS, CORES = 16, 256, 64, 64, 2
LOAD = 0.7
"""Share of what vLLM can answer a second, at which requests arrive."""
Rates = dict[str, list[float]]


def run(quick: bool) -> list[Figure]:
    """Our engine beside itself and beside transformers."""
    return [
        *_causal(SHAPES["34m"], quick),
        *_larger(SHAPES["160m"], quick),
        *_t5(quick),
        *_without_pause(SHAPES["34m"], quick),
    ]


def run_peers(quick: bool) -> list[Figure]:
    """Beside vLLM and PEFT, each in a process of its own."""
    shape, rounds = SHAPES["34m"], 2 if quick else 5
    on, ours = cores(CORES), Ours(SHAPES["34m"], EXPERTS, CORES)
    job = _job(shape)
    with ExitStack() as stack:
        vllm = stack.enter_context(peers.vllm(job, on))
        adapted = stack.enter_context(peers.transformers({**job, "batch": 32}, on))
        rates = _turns(
            {
                "merge": lambda: _written(ours, shape, pairs(ROWS, EXPERTS)),
                "vllm": lambda: vllm.measure()["tokens_per_second"],
                "peft": lambda: adapted.measure()["tokens_per_second"],
            },
            rounds,
        )
    return [
        at_least("merge of 2 over vLLM with one adapter each", _ratio(rates, "merge", "vllm"), 2),
        at_least("merge of 2 over PEFT adapter_names", _ratio(rates, "merge", "peft"), 2),
        *_told(rates),
        *_first_tokens(shape, ours, median(rates["vllm"]), on, quick),
    ]


def _first_tokens(
    shape: Shape, ours: Ours, vllm_rate: float, on: Sequence[int], quick: bool
) -> list[Figure]:
    """Mean time to the first token with independent arrivals, the same for both."""
    rate = LOAD * vllm_rate / TOKENS
    at = arrivals(ROWS, rate)
    job = {**_job(shape), "arrivals": at}
    rounds = 1 if quick else 3
    with peers.vllm(job, on) as vllm:
        theirs = median(vllm.measure()["first_token_mean"] for _ in range(rounds))
    mine = median(
        ours.latency(prompts(shape), pairs(ROWS, EXPERTS), TOKENS, at).first for _ in range(rounds)
    )
    return [
        at_most("mean seconds to the first token over vLLM's, at 70% of its load",
                mine / theirs, 1),
        reported("mean seconds to the first token", mine),
        reported("vLLM: mean seconds to the first token", theirs),
    ]  # fmt: skip


def _causal(shape: Shape, quick: bool) -> list[Figure]:
    rounds = 2 if quick else 7
    few, many = Ours(shape, EXPERTS, CORES), Ours(shape, MANY, CORES)
    rates = _turns(
        {
            "bare": lambda: _written(few, shape, [BARE] * ROWS),
            "one": lambda: _written(few, shape, one_each(ROWS, EXPERTS)),
            "merge": lambda: _written(few, shape, pairs(ROWS, EXPERTS)),
            "token": lambda: _written(few, shape, pairs(ROWS, EXPERTS, "token")),
            "spread": lambda: _written(many, shape, pairs(ROWS, MANY)),
        },
        rounds,
    )
    steps = _turns(
        {name: lambda of=of: 1 / of.step_seconds(prompts(shape), pairs(ROWS, EXPERTS), 16)
         for name, of in (("few", few), ("many", many))},
        rounds,
    )  # fmt: skip
    return [
        at_least("merge of 2 over bare", _ratio(rates, "merge", "bare"), 0.85),
        at_least("token mode over bare", _ratio(rates, "token", "bare"), 0.65),
        reported("one expert over bare", _ratio(rates, "one", "bare")),
        at_most("a step with 256 resident over 16 resident", _ratio(steps, "few", "many"), 1.1),
        at_least("spread over 256 over 16", _ratio(rates, "spread", "merge"), 0.7),
        *_told(rates),
    ]


def _larger(shape: Shape, quick: bool) -> list[Figure]:
    ours = Ours(shape, EXPERTS, CORES)
    rates = _turns(
        {
            "160m, bare": lambda: _written(ours, shape, [BARE] * ROWS),
            "160m, merge": lambda: _written(ours, shape, pairs(ROWS, EXPERTS)),
            "160m, token": lambda: _written(ours, shape, pairs(ROWS, EXPERTS, "token")),
        },
        1 if quick else 3,
    )
    return [
        at_least("160m: merge of 2 over bare", _ratio(rates, "160m, merge", "160m, bare"), 0.85),
        at_least("160m: token over bare", _ratio(rates, "160m, token", "160m, bare"), 0.65),
        *_told(rates),
    ]


def _t5(quick: bool) -> list[Figure]:
    shape, ours = SHAPES["t5"], Ours(SHAPES["t5"], EXPERTS, CORES)
    job = {**_job(shape), "adapters": [], "batch": 32}
    with peers.transformers(job, cores(CORES)) as bare:
        rates = _turns(
            {
                "t5, one": lambda: _written(ours, shape, one_each(ROWS, EXPERTS)),
                "t5, generate": lambda: bare.measure()["tokens_per_second"],
            },
            2 if quick else 5,
        )
    ratio = _ratio(rates, "t5, one", "t5, generate")
    return [at_least("T5: 16 experts over bare padded generate", ratio, 0.8), *_told(rates)]


def _without_pause(shape: Shape, quick: bool) -> list[Figure]:
    """Both without experts: transformers' own continuous batching, and ours."""
    ours, job = Ours(shape, EXPERTS, CORES), {**_job(shape), "adapters": [], "batch": None}
    with peers.transformers(job, cores(CORES)) as theirs:
        rates = _turns(
            {
                "bare": lambda: _written(ours, shape, [BARE] * ROWS),
                "generate_batch": lambda: theirs.measure()["tokens_per_second"],
            },
            1 if quick else 3,
        )
    ratio = _ratio(rates, "bare", "generate_batch")
    rate = median(rates["generate_batch"])
    return [
        reported("bare over transformers' continuous batching", ratio),
        reported("tokens a second: transformers' continuous batching", rate),
    ]


def _written(ours: Ours, shape: Shape, selections: Sequence[Selection]) -> float:
    return ours.tokens_per_second(prompts(shape), selections, TOKENS)


def _job(shape: Shape) -> dict[str, object]:
    """What peers are asked: one adapter each, in turn."""
    return {
        "checkpoint": str(checkpoint(shape)), "adapters": [str(f) for f in adapters(shape)],
        "prompts": prompts(shape), "adapter_of": [i % EXPERTS for i in range(ROWS)],
        "output_tokens": TOKENS,
    }  # fmt: skip


def _turns(cases: Mapping[str, Callable[[], float]], rounds: int) -> Rates:
    """Each case's rates, once a round, after one that does not count; starts move on."""
    names = list(cases)
    rates: Rates = {name: [] for name in names}
    for name in names:
        cases[name]()
    for turn in range(rounds):
        first = turn % len(names)
        for name in (*names[first:], *names[:first]):
            rates[name].append(cases[name]())
    return rates


def _ratio(rates: Rates, name: str, base: str) -> float:
    """Median over the rounds of one rate by another of the same round."""
    return median(a / b for a, b in zip(rates[name], rates[base], strict=True))


def _told(rates: Rates) -> list[Figure]:
    return [reported(f"tokens a second: {name}", median(found)) for name, found in rates.items()]
