"""Two tiny language models in float64, adapters of PEFT for them, and loops to run."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import peft
import pytest
import torch
from safetensors.torch import load_file

from experts.backbones import LanguageModel
from experts.backbones.tiny import tiny_causal, tiny_seq2seq
from experts.host import HostExpert
from experts.kinds import KINDS, Adapter
from experts.mix import build_mix
from experts.scope import EVERYTHING, Scope
from experts.stacks import stack_experts
from experts.tiers import Tiers
from experts.weights import ExpertWeights
from routers.token import TOKEN_ROUTERS
from routers.types import Chosen, Selection
from server.engine.generation.loop import GenerationLoop
from server.engine.generation.messages import Piece, Prompt, Sampling
from server.engine.generation.request import Request, Ticket
from server.engine.passes import row_mix

FAMILIES = {"causal": tiny_causal, "seq2seq": tiny_seq2seq}
RANKS = {"a": 4, "b": 3, "c": 6}


class AtOnce:
    """An event loop that runs what it is given at once."""

    def call_soon_threadsafe(self, work: Callable[..., None], *args: Any) -> None:
        work(*args)


class Listener(Ticket):
    """A ticket that keeps what it is told."""

    def __init__(self, count: int = 1) -> None:
        super().__init__(AtOnce(), count)  # type: ignore[arg-type]
        self.count = count
        self.told: list[Piece | Exception] = []

    def put(self, event: Piece | Exception) -> None:
        self.told.append(event)

    @property
    def error(self) -> Exception | None:
        return next((e for e in self.told if isinstance(e, Exception)), None)

    def pieces_of(self, index: int = 0) -> list[Piece]:
        return [e for e in self.told if isinstance(e, Piece) and e.index == index]

    def tokens(self, index: int = 0) -> list[int]:
        return [t.token for p in self.pieces_of(index) for t in p.tokens]

    def text(self, index: int = 0) -> str:
        return "".join(p.text for p in self.pieces_of(index))

    def finish(self, index: int = 0) -> str | None:
        return self.pieces_of(index)[-1].finish

    @property
    def ended(self) -> bool:
        whole = all(self.pieces_of(i) and self.finish(i) for i in range(self.count))
        return self.error is not None or whole


@dataclass
class Stage:
    """A backbone, its experts as PEFT and as we hold them, and a loop."""

    family: str
    backbone: LanguageModel
    folders: Mapping[str, Path]
    experts: Mapping[str, ExpertWeights]
    tiers: Tiers
    loops: list[GenerationLoop] = field(default_factory=list)

    def loop(self, **options: Any) -> GenerationLoop:
        made = GenerationLoop(self.backbone, self.tiers, **{"kv_bytes": 1 << 26, **options})
        self.loops.append(made)
        return made

    def peft(self, name: str | None) -> Any:
        """The model as PEFT runs it with one adapter; the bare model for None."""
        model = copy.deepcopy(FAMILIES[self.family](dtype=torch.float64).model)
        model.set_attn_implementation("eager")
        if name is None:
            return model
        return peft.PeftModel.from_pretrained(model, self.folders[name]).eval()

    def generate(self, model: Any, prompt: Sequence[int], count: int) -> list[int]:
        """What transformers' own greedy `generate` writes."""
        found = model.generate(
            input_ids=torch.tensor([prompt]), attention_mask=torch.ones(1, len(prompt)).long(),
            max_new_tokens=count, do_sample=False, pad_token_id=0,
        )  # fmt: skip
        return found[0, (1 if self.family == "seq2seq" else len(prompt)) :].tolist()

    def slowly(self, prompt: Sequence[int], selection: Selection, count: int) -> list[int]:
        """The slow twin: every token by a pass over all before it, by the reference kernels."""
        refs = [self.experts[ref] for ref in selection.refs]
        router = TOKEN_ROUTERS.get(selection.token_router or "")
        mix = build_mix([row_mix(selection)], [stack_experts(refs)], router) if refs else None
        written: list[int] = []
        with pytest.MonkeyPatch.context() as patch, torch.inference_mode():
            patch.setattr("experts.kernels.cheapest", lambda *_, **__: "reference")
            while len(written) < count and not self.backbone.eos & {*written}:
                written.append(self._next(prompt, written, mix))
        return written

    def _next(self, prompt: Sequence[int], written: Sequence[int], mix: Any) -> int:
        model = self.backbone.model
        with self.backbone.hooks.mixing(mix):
            if self.family == "causal":
                out = model(input_ids=torch.tensor([[*prompt, *written]]), use_cache=False)
            else:
                out = model(
                    input_ids=torch.tensor([prompt]), use_cache=False,
                    decoder_input_ids=torch.tensor([[0, *written]]),
                )  # fmt: skip
        return int(out.logits[0, -1].argmax())


def single(ref: str | None, strength: float = 1.0) -> Selection:
    if ref is None:
        return Selection(mode="base")
    return Selection(mode="single", experts=(Chosen(id=ref, weight=1.0),), strength=strength)


def merged(weights: Mapping[str, float], strength: float = 1.0) -> Selection:
    chosen = tuple(Chosen(id=ref, weight=w) for ref, w in weights.items())
    return Selection(mode="merge", experts=chosen, strength=strength)


def per_token(refs: Sequence[str], router: str = "gate", top_k: int = 2) -> Selection:
    chosen = tuple(
        Chosen(id=ref, weight=1 / len(refs), prior=0.3 * i) for i, ref in enumerate(refs)
    )
    return Selection(mode="token", experts=chosen, token_router=router, top_k=top_k)


def prompts(seed: int, *lengths: int) -> list[list[int]]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randint(5, 100, (n,), generator=generator).tolist() for n in lengths]


def ask(
    loop: GenerationLoop, prompt: Sequence[int], selection: Selection, *, count: int = 1,
    deadline: float | None = None, scope: Scope = EVERYTHING, listens: bool = False,
    **sampling: Any,
) -> Listener:  # fmt: skip
    """Put a prompt; greedy unless it says otherwise."""
    rules = Sampling(**{"max_tokens": 12, "temperature": 0.0, **sampling})
    listener = Listener(count)
    loop.put(
        Request(
            Prompt(tuple(prompt), selection, rules, count, scope=scope, listens=listens),
            listener, deadline,
        )
    )  # fmt: skip
    return listener


def finish(loop: GenerationLoop, steps: int = 1000) -> None:
    for _ in range(steps):
        if not loop.busy:
            return
        loop.step()
    raise AssertionError("the loop does not come to an end")


@pytest.fixture(scope="session", params=FAMILIES)
def stage(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Stage]:
    family = request.param
    backbone = FAMILIES[family](dtype=torch.float64)
    backbone.widen(2)
    root = tmp_path_factory.mktemp(family)
    folders = {id: _adapter(root / id, family, id) for id in RANKS}
    experts = {f"{id}@1": _expert(backbone, folder, f"{id}@1") for id, folder in folders.items()}
    experts["huge@1"] = _times(experts["b@1"], 1e200)
    tiers = Tiers(
        lambda ref: HostExpert.of(experts[ref], {}, experts[ref].vectors).named(ref, 1),
        dtype=torch.float64, device="cpu", host_bytes=1 << 26, device_bytes=1 << 26,
    )  # fmt: skip
    yield Stage(family, backbone, folders, experts, tiers)
    tiers.close()


def _adapter(folder: Path, family: str, id: str) -> Path:
    """A random LoRA adapter of PEFT on every linear layer but the head."""
    torch.manual_seed(sum(map(ord, id)))
    base = FAMILIES[family](dtype=torch.float64).model
    config = peft.LoraConfig(
        r=RANKS[id], lora_alpha=8, target_modules="all-linear", task_type="CAUSAL_LM"
        if family == "causal" else "SEQ_2_SEQ_LM",
    )  # fmt: skip
    model = peft.get_peft_model(base, config)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.copy_(torch.randn_like(parameter) * 0.3)
    model.save_pretrained(folder)
    return folder


def _times(expert: ExpertWeights, factor: float) -> ExpertWeights:
    """An expert whose numbers overflow."""
    sites = {
        s: {part: t * factor for part, t in parts.items()} for s, parts in expert.sites.items()
    }
    return ExpertWeights("huge@1", expert.kind, expert.group, sites, expert.vectors)


def _expert(backbone: LanguageModel, folder: Path, ref: str) -> ExpertWeights:
    """The adapter as the library would load it, with random gates."""
    config = json.loads((folder / "adapter_config.json").read_text())
    tensors = load_file(folder / "adapter_model.safetensors")
    fitted = KINDS["lora"].fit(Adapter(config, tensors), backbone.sites, ref)
    host = HostExpert.of(fitted.expert, fitted.scales, {}).named(ref, 1)
    made = host.materialise(torch.float64, "cpu")
    generator = torch.Generator().manual_seed(sum(map(ord, ref)))
    gates = {
        site: torch.randn(backbone.sites[site].in_features, generator=generator).double()
        for site in made.sites
    }
    arrows = {site: torch.linalg.svd(t["A"].T @ t["B"])[0][:, 0] for site, t in made.sites.items()}
    vectors = {"gate": gates, "arrow": arrows}
    return ExpertWeights(ref, made.kind, made.group, made.sites, vectors, made.inert, 1)
