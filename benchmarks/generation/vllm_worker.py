"""vLLM's CPU build under measurement: `python vllm_worker.py '<job>'`, in vLLM's environment.

The job is JSON:
- `checkpoint`, `adapters`: folders; no adapter means vLLM without LoRA.
- `prompts`: token ids of each. `adapter_of`: the index of each one's adapter. Without adapters it
  is not looked at; with them none may be null.
- `output_tokens`: of every request, greedy, past any end token. `threads`. `dtype`: or float32.
- `arrivals`: seconds at which the requests come. Without it they are all there at once.
- `environment`: variables that replace those of `with_settings`, to try others.
- `runs`: how many are measured, after one that is not; answered by one line. Without it, each line
  of stdin asks for one more run, and `{"ready": ...}` comes first.

Imports nothing of Sailplane. The only lines on stdout are the answers, in JSON; vLLM's own words
go to stderr.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections import deque
from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path
from statistics import fmean, median, quantiles
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from vllm import LLM, RequestOutput, SamplingParams
    from vllm.lora.request import LoRARequest

Job = dict[str, Any]
Answer = dict[str, Any]
MOST_SEQUENCES = 64
LONGEST = 512


class Requests:
    """The job's requests, as vLLM takes them.

    Raises:
        ValueError: some have an adapter and some have none. In such a batch vLLM 0.32 on a CPU
            gives those without one the adapter in its last slot, and says nothing (vllm#48421).
    """

    def __init__(self, job: Job) -> None:
        folders, owners = job["adapters"], job["adapter_of"]
        if folders and None in owners:
            raise ValueError("vLLM on a CPU answers wrongly where some requests have no adapter.")
        from vllm.lora.request import LoRARequest

        self.prompts = [{"prompt_token_ids": ids} for ids in job["prompts"]]
        self.output_tokens: int = job["output_tokens"]
        self.loras: list[LoRARequest] | None = None
        if folders:
            self.loras = [LoRARequest(f"adapter-{i}", i + 1, folders[i]) for i in owners]

    def params(self, **fields: Any) -> SamplingParams:
        """Greedy, of a fixed length."""
        from vllm import SamplingParams

        length = self.output_tokens
        return SamplingParams(
            temperature=0, max_tokens=length, ignore_eos=True, detokenize=False, **fields
        )


def open_llm(job: Job) -> LLM:
    """An engine with what makes it fast for this job, in which no prompt is found again."""
    from vllm import LLM

    lora: dict[str, Any] = {}
    if folders := job["adapters"]:
        config = json.loads((Path(folders[0]) / "adapter_config.json").read_text("utf-8"))
        lora = {
            "enable_lora": True,
            "max_loras": min(len(folders), 16),
            "max_cpu_loras": len(folders),
            "max_lora_rank": config["r"],
            # Or else the head has adapters too, of zeros.
            "lora_target_modules": config["target_modules"],
        }
    return LLM(
        model=job["checkpoint"], dtype=job.get("dtype", "float32"), enforce_eager=True,
        skip_tokenizer_init=True, enable_prefix_caching=False, disable_log_stats=True,
        max_model_len=LONGEST, max_num_seqs=MOST_SEQUENCES, **lora,
    )  # fmt: skip


def at_once(llm: LLM, requests: Requests) -> Answer:
    """Tokens per second of all requests together."""
    begun = time.perf_counter()
    done: list[RequestOutput] = llm.generate(
        requests.prompts, requests.params(), lora_request=requests.loras, use_tqdm=False
    )
    spent = time.perf_counter() - begun
    texts = [list(d.outputs[0].token_ids) for d in done]
    return {"tokens_per_second": sum(map(len, texts)) / spent, "texts": texts}


def as_they_come(llm: LLM, requests: Requests, arrivals: list[float], turn: int) -> Answer:
    """How long requests wait for their first token and between tokens, in seconds.

    A wait begins at the arrival, also where the engine was in the middle of a step by then.
    """
    from vllm.sampling_params import RequestOutputKind

    engine, params = llm.llm_engine, requests.params(output_kind=RequestOutputKind.DELTA)
    coming = deque(enumerate(arrivals))
    seen: list[list[float]] = [[] for _ in arrivals]
    begun = time.perf_counter()
    while coming or engine.has_unfinished_requests():
        now = time.perf_counter() - begun
        while coming and coming[0][1] <= now:
            at, _ = coming.popleft()
            lora = requests.loras[at] if requests.loras else None
            engine.add_request(f"{turn}-{at}", requests.prompts[at], params, lora_request=lora)
        if not engine.has_unfinished_requests():
            time.sleep(max(0.0, coming[0][1] - now))
            continue
        for output in engine.step():
            at = int(output.request_id.partition("-")[2])
            now = time.perf_counter() - begun
            seen[at] += [now] * len(output.outputs[0].token_ids)
    return waits(arrivals, seen)


def waits(arrivals: list[float], seen: list[list[float]]) -> Answer:
    """Mean and 95th percentile to the first token, and the mean between tokens, in seconds."""
    first = [times[0] - came for came, times in zip(arrivals, seen, strict=True)]
    between = [(times[-1] - times[0]) / (len(times) - 1) for times in seen]
    return {
        "first_token_mean": fmean(first),
        "first_token_p95": quantiles(first, n=20, method="inclusive")[-1],
        "between_tokens_mean": fmean(between),
    }


def with_settings(job: Job) -> None:
    """Start this program anew with settings under which vLLM keeps quiet cores busy.

    One process: an engine in a process of its own waits actively, which costs one core of few.
    Intel's OpenMP is set up as vLLM does it itself where it binds threads; it and tcmalloc, both
    advised by vLLM's documentation, must be there before the program starts. Beside other work
    GNU's OpenMP is faster, with OMP_WAIT_POLICY=PASSIVE: bound threads wait for each other.
    """
    openmp = Path(sys.prefix) / "lib/libiomp5.so"
    threads: int = job["threads"]
    cores = sorted(os.sched_getaffinity(0))[:threads]
    wanted = {
        "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
        "VLLM_CPU_OMP_THREADS_BIND": "nobind",
        "VLLM_CPU_KVCACHE_SPACE": "2",
        "OMP_NUM_THREADS": str(threads),
        "KMP_AFFINITY": f"granularity=fine,explicit,proclist=[{','.join(map(str, cores))}]",
        "KMP_BLOCKTIME": "5",
        "KMP_TPAUSE": "0",
        "LD_PRELOAD": f"{openmp}:libtcmalloc_minimal.so.4",
        "VLLM_LOGGING_LEVEL": "ERROR",
        "VLLM_NO_USAGE_STATS": "1",
        "HF_HUB_OFFLINE": "1",
        **job.get("environment", {}),
    }
    if any(os.environ.get(key) != value for key, value in wanted.items()):
        os.execve(sys.executable, [sys.executable, *sys.argv], {**os.environ, **wanted})


def measured(job: Job) -> Iterator[Answer]:
    """One run after the other, the first of them a warm-up."""
    requests, llm = Requests(job), open_llm(job)
    for turn in count():
        arrivals = job.get("arrivals")
        # The warm-up loads every adapter, whatever is measured.
        if arrivals is None or turn == 0:
            yield at_once(llm, requests)
        else:
            yield as_they_come(llm, requests, arrivals, turn)


def answer(job: Job, write: Callable[[Answer], None]) -> None:
    """Measure what the job asks, as often as it asks."""
    runs = measured(job)
    next(runs)
    if "runs" in job:
        answers = [next(runs) for _ in range(job["runs"])]
        figures = [key for key in answers[0] if key != "texts"]
        write({**answers[0], **{key: median(a[key] for a in answers) for key in figures}})
        return
    write({"ready": True})
    for _ in sys.stdin:
        write(next(runs))


def main() -> None:
    """Keep stdout for answers, and answer."""
    job = json.loads(sys.argv[1])
    with_settings(job)
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    answer(job, lambda line: print(json.dumps(line), file=answers))


if __name__ == "__main__":
    main()
