"""Kind `lora`: `y + sum_k w_k (x A_k) B_k`, Hu et al. 2021, as PEFT writes it.

Site tensors: `A` (R, D) and `B` (R, O) with the scaling folded into `B`. Merging keeps the
factors side by side (rank concatenation): averaging A and B apart would leave cross terms.
"""

from __future__ import annotations

import math
import re
from collections.abc import Hashable, Iterable, Mapping, Sequence

import torch
from torch import Tensor

from experts.errors import MismatchedExpert, UnsupportedExpert
from experts.kernels import Use, low_rank_add
from experts.kinds.base import Adapter, Fitted, Kind, Site
from experts.kinds.names import PREFIX, place, require_finite
from experts.kinds.patterns import require_quick
from experts.kinds.targets import require_targeted
from experts.weights import ExpertWeights, SiteTensors

# What these fields say is either in the tensors already or has no meaning once trained;
# `fan_in_fan_out` is about adding the update to the frozen weight, which is never done here.
HARMLESS = {
    "task_type", "peft_type", "auto_mapping", "peft_version", "base_model_name_or_path",
    "revision", "inference_mode", "r", "target_modules", "exclude_modules", "lora_alpha",
    "lora_dropout", "use_rslora", "layers_to_transform", "layers_pattern", "rank_pattern",
    "alpha_pattern", "megatron_core", "loftq_config", "runtime_config", "qalora_group_size",
    "init_lora_weights", "bias", "eva_config", "ensure_weight_tying", "fan_in_fan_out",
}  # fmt: skip
# Other initialisations (PiSSA, OLoRA, CorDA, LoftQ, LoRA-GA) rewrite the frozen weights: such an
# adapter is a difference to those.
KEEPS_BACKBONE = (None, "", True, False, "true", "false", "gaussian", "eva", "orthogonal", "mica")


class Lora(Kind):
    """Low-rank additive updates of linear layers."""

    name = "lora"
    peft_type = "LORA"

    def fit(self, adapter: Adapter, sites: Mapping[str, Site], id: str) -> Fitted:
        """See `Kind.fit`; B has the scale."""
        config = adapter.config
        _refuse_unsupported(config)
        factors: dict[str, dict[str, Tensor]] = {}
        foreign: list[str] = []
        for name, tensor in adapter.tensors.items():
            module, _, part = name.removesuffix(".weight").rpartition(".lora_")
            parts = factors.setdefault(module.removeprefix(PREFIX), {})
            if part in ("A", "B") and module and part not in parts:
                parts[part] = tensor
            else:
                foreign.append(name)
        factors = {module: parts for module, parts in factors.items() if parts}
        shapes = {s.name: {"A": (None, s.in_features), "B": (s.out_features, None)}
                  for s in sites.values()}  # fmt: skip
        placed, inert = place(factors, foreign, shapes, sites)
        for site, tensors in factors.items():
            _require_one_rank(site, tensors)
        require_finite(factors)
        require_targeted(config, factors, sites)
        alphas = _alpha_pattern(config, sites)
        loaded = {site: {"A": t["A"], "B": t["B"].T} for site, t in placed.items()}
        scales = {(site, "B"): _scaling(config, alphas, site, t["A"].shape[0])
                  for site, t in placed.items()}  # fmt: skip
        return Fitted(ExpertWeights(id, self.name, self.group(loaded), loaded, inert=inert), scales)

    def write(self, expert: ExpertWeights) -> Adapter:
        """See `Kind.write`: scaling is 1, so alpha equals the rank at every site."""
        tensors: dict[str, Tensor] = {}
        ranks = {site: t["A"].shape[0] for site, t in expert.sites.items()}
        for site, t in expert.sites.items():
            tensors[f"{PREFIX}{site}.lora_A.weight"] = t["A"].contiguous()
            tensors[f"{PREFIX}{site}.lora_B.weight"] = t["B"].T.contiguous()
        rank = max(ranks.values())
        odd = {site: r for site, r in ranks.items() if r != rank}
        config: dict[str, object] = {
            "peft_type": self.peft_type, "task_type": None, "base_model_name_or_path": None,
            "inference_mode": True, "r": rank, "lora_alpha": rank, "lora_dropout": 0.0,
            "target_modules": sorted(expert.sites), "bias": "none",
            "rank_pattern": odd, "alpha_pattern": odd,
        }  # fmt: skip
        return Adapter(config, tensors)

    def target_sites(self, sites: Iterable[Site]) -> list[Site]:
        """Every linear layer that reaches the output."""
        return [s for s in sites if s.reaches_output]

    def initial(
        self, sites: Iterable[Site], *, rank: int, generator: torch.Generator
    ) -> dict[str, dict[str, Tensor]]:
        """A uniform as PEFT's default (Kaiming, a = sqrt 5), B zero."""
        fresh: dict[str, dict[str, Tensor]] = {}
        for s in sites:
            bound = s.in_features**-0.5
            A = torch.empty(rank, s.in_features).uniform_(-bound, bound, generator=generator)
            fresh[s.name] = {"A": A, "B": torch.zeros(rank, s.out_features)}
        return fresh

    def group(self, sites: Mapping[str, SiteTensors]) -> Hashable:
        """LoRA of any ranks and sites is one group."""
        return ("lora",)

    def group_text(self, sites: Mapping[str, SiteTensors]) -> str:
        """The one group's name."""
        return self.name

    def stack(self, per_expert: Sequence[SiteTensors | None]) -> dict[str, Tensor]:
        """Factors padded with zeros to the largest rank among the experts."""
        present = [t for t in per_expert if t is not None]
        rank = max(t["A"].shape[0] for t in present)
        like = present[0]
        stacked: dict[str, Tensor] = {}
        for part in ("A", "B"):
            empty = like[part].new_zeros(rank, like[part].shape[1])
            stacked[part] = torch.stack(
                [empty if t is None else _pad_rank(t[part], rank) for t in per_expert]
            )
        return stacked

    def apply(
        self, y_NO: Tensor, x_ND: Tensor, stack: Mapping[str, Tensor], use: Use,
        strength_B: Tensor | None,
    ) -> Tensor:  # fmt: skip
        """`y + strength * sum_k w_k (x A_k) B_k`; the mix is linear, so strength scales w."""
        if strength_B is not None:
            use = use.scaled(strength_B)
        in_place = not torch.is_grad_enabled()
        return low_rank_add(y_NO, x_ND, stack["A"], stack["B"], use, in_place=in_place)

    def input_rows(self, tensors: SiteTensors) -> Tensor:
        """Those of A."""
        return tensors["A"]

    def merge(self, experts: Sequence[ExpertWeights], weights: Sequence[float]) -> ExpertWeights:
        """Rank concatenation: exactly the weighted sum of the deltas."""
        merged: dict[str, SiteTensors] = {}
        for site in dict.fromkeys(s for e in experts for s in e.sites):
            here = [(e.sites[site], w) for e, w in zip(experts, weights, strict=True)
                    if site in e.sites]  # fmt: skip
            merged[site] = {
                "A": torch.cat([t["A"] for t, _ in here]),
                "B": torch.cat([t["B"] * w for t, w in here]),
            }
        return ExpertWeights("+".join(e.id for e in experts), self.name, ("lora",), merged)


def _pad_rank(t_RX: Tensor, rank: int) -> Tensor:
    missing = rank - t_RX.shape[0]
    return t_RX if not missing else torch.cat([t_RX, t_RX.new_zeros(missing, t_RX.shape[1])])


def _alpha_pattern(
    config: Mapping[str, object], sites: Iterable[str]
) -> list[tuple[re.Pattern[str], object]]:
    """Patterns of site names and their alpha, put together as PEFT does in `get_pattern_key`."""
    patterns = config.get("alpha_pattern") or {}
    if not isinstance(patterns, Mapping):
        raise UnsupportedExpert("alpha_pattern is not an object of pattern and alpha.")
    require_quick("alpha_pattern", patterns, sites)
    return [(re.compile(rf"(.*\.)?({key})$"), alpha) for key, alpha in patterns.items()]


def _scaling(
    config: Mapping[str, object],
    alphas: Sequence[tuple[re.Pattern[str], object]],
    site: str,
    rank: int,
) -> float:
    """What PEFT multiplies by: alpha / r, or alpha / sqrt(r) under rsLoRA; its own patterns."""
    usual = config.get("lora_alpha", 8)
    alpha = next((alpha for pattern, alpha in alphas if pattern.match(site)), usual)
    if not isinstance(alpha, int | float) or not math.isfinite(alpha):
        raise UnsupportedExpert(f"lora_alpha of {site} is not a finite number.")
    return alpha / (rank**0.5 if config.get("use_rslora") else rank)


def _require_one_rank(site: str, tensors: Mapping[str, Tensor]) -> None:
    rank = tensors["A"].shape[0]
    if rank != tensors["B"].shape[1] or not rank:
        raise MismatchedExpert(
            f"lora_A and lora_B of {site} have ranks {rank} and {tensors['B'].shape[1]}.",
            unmatched=[site],
        )


def _refuse_unsupported(config: Mapping[str, object]) -> None:
    """Refuse by name whatever would change the result and is not computed here."""
    initial = config.get("init_lora_weights")
    if initial not in KEEPS_BACKBONE:
        raise UnsupportedExpert(
            f"init_lora_weights={initial!r} may change the backbone's own weights; convert the "
            "adapter with PEFT's path_initial_model_for_weight_conversion."
        )
    if config.get("bias") not in (None, "none"):
        raise UnsupportedExpert(f"bias={config['bias']!r}: trained biases are not served.")
    extra = sorted(k for k, v in config.items() if v and k not in HARMLESS)
    if extra:
        raise UnsupportedExpert(f"Not served: {', '.join(extra)}.", features=extra)
