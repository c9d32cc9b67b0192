"""What transformers and PEFT do under measurement, in a process of its own.

`python -m benchmarks.generation.transformers_worker '<job>'`; the job is JSON, as the one for
`vllm_worker.py`, without `arrivals` and `dtype`:
- `checkpoint`, `adapters`: folders; no adapter means bare `generate`, else one PEFT model holds
  them all and `adapter_names` says which one is whose.
- `prompts`: token ids of each, padded here. `adapter_of`: the index of each one's adapter, or
  null.
- `output_tokens`: of every request, greedy, past any end token. `threads`. `batch`: how many
  requests at once; null is continuous batching (`generate_batch`), which takes no adapters.
- `runs`: as for `vllm_worker.py`.

Decoder-only backbones and T5 alike. Knows nothing of Sailplane but how it keeps freed memory, by
which these gain too.
"""

from __future__ import annotations

import json
import math
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from statistics import median
from typing import Any

import torch
from peft import PeftModel
from torch import Tensor
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForSeq2SeqLM,
    ContinuousBatchingConfig,
    GenerationConfig,
)
from transformers.utils import logging

from experts.memory import keep_freed

Job = dict[str, Any]
Answer = dict[str, Any]
PAGE, BATCH_TOKENS = 64, 256
BARE = "__base__"  # PEFT's own word for a row without an adapter


def open_model(job: Job) -> torch.nn.Module:
    """The backbone, or one PEFT model with every adapter of the job."""
    folder, adapters = job["checkpoint"], job["adapters"]
    seq2seq = AutoConfig.from_pretrained(folder).is_encoder_decoder
    kind = AutoModelForSeq2SeqLM if seq2seq else AutoModelForCausalLM
    model = kind.from_pretrained(folder, dtype=torch.float32)
    if adapters:
        model = PeftModel.from_pretrained(model, adapters[0], adapter_name="0")
        for at, adapter in enumerate(adapters[1:], start=1):
            model.load_adapter(adapter, adapter_name=str(at))
    return model.eval()


def padded(rows: Sequence[Sequence[int]], pad: int, left: bool) -> tuple[Tensor, Tensor]:
    """Token ids (B, T) and their mask."""
    longest = max(map(len, rows))
    ids_BT = torch.full((len(rows), longest), pad)
    mask_BT = torch.zeros_like(ids_BT)
    for at, row in enumerate(rows):
        where = slice(longest - len(row), None) if left else slice(len(row))
        ids_BT[at, where], mask_BT[at, where] = torch.tensor(row), 1
    return ids_BT, mask_BT


@torch.inference_mode()
def written(model: torch.nn.Module, job: Job, rows: range) -> list[list[int]]:
    """What one batch of the job's prompts is continued by."""
    config, tokens = model.config, job["output_tokens"]
    left = not config.is_encoder_decoder
    ids_BT, mask_BT = padded([job["prompts"][r] for r in rows], config.pad_token_id, left)
    named: dict[str, list[str]] = {}
    if job["adapters"]:
        owners = (job["adapter_of"][r] for r in rows)
        named = {"adapter_names": [BARE if o is None else str(o) for o in owners]}
    texts_BT = model.generate(
        input_ids=ids_BT, attention_mask=mask_BT, do_sample=False, num_beams=1,
        min_new_tokens=tokens, max_new_tokens=tokens, **named,
    )  # fmt: skip
    return texts_BT[:, -tokens:].tolist()


@torch.inference_mode()
def written_without_pause(model: Any, job: Job) -> list[list[int]]:
    """What all of the job's prompts are continued by, in transformers' continuous batching.

    With its own sizes it takes 60% of the memory; these were the fastest of those tried.
    """
    if job["adapters"]:
        raise ValueError("Continuous batching is measured without adapters.")
    prompts, tokens = job["prompts"], job["output_tokens"]
    pages = math.ceil((max(map(len, prompts)) + tokens) / PAGE) + 1
    sizes = ContinuousBatchingConfig(
        page_size=PAGE, num_blocks=len(prompts) * pages, max_batch_tokens=BATCH_TOKENS
    )
    rules = GenerationConfig(max_new_tokens=tokens, do_sample=False, eos_token_id=-1)
    told = model.generate_batch(prompts, rules, sizes)
    in_order = sorted(told, key=lambda name: int(name.removeprefix("req_")))
    return [told[name].generated_tokens for name in in_order]


def measured(job: Job) -> Iterator[Answer]:
    """One run over all prompts after the other, the first of them a warm-up."""
    torch.set_num_threads(job["threads"])
    model, size, count = open_model(job), job["batch"], len(job["prompts"])
    while True:
        texts: list[list[int]] = []
        begun = time.perf_counter()
        if size is None:
            texts = written_without_pause(model, job)
        for first in range(0, count, size) if size else ():
            texts += written(model, job, range(first, min(first + size, count)))
        spent = time.perf_counter() - begun
        yield {"tokens_per_second": sum(map(len, texts)) / spent, "texts": texts}


def answer(job: Job, write: Callable[[Answer], None]) -> None:
    """Measure what the job asks, as often as it asks."""
    runs = measured(job)
    next(runs)
    if "runs" in job:
        answers = [next(runs) for _ in range(job["runs"])]
        rate = median(a["tokens_per_second"] for a in answers)
        write({**answers[0], "tokens_per_second": rate})
        return
    write({"ready": True})
    for _ in sys.stdin:
        write(next(runs))


def main() -> None:
    """Answer the job of the command line."""
    logging.disable_progress_bar()
    keep_freed()
    answer(json.loads(sys.argv[1]), lambda line: print(json.dumps(line), flush=True))


if __name__ == "__main__":
    main()
