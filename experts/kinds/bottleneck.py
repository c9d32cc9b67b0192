"""Kind `bottleneck`: Houlsby adapters after the attention output and the feed-forward output.

`y + U act(D y + b) + c` on the projection's output, before the residual norm. Merging happens
in parameter space, as DAM defines it (Cheng et al. 2024, section 3.3): the activation sees the
mixed projection, so mixing outputs instead would be another function. Site tensors: `D` (H, O),
`b` (H,), `U` (O, H), `c` (O,).
"""

from __future__ import annotations

import hashlib
from collections.abc import Hashable, Iterable, Mapping, Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from experts.errors import MismatchedExpert, MixError, UnsupportedExpert
from experts.kernels import Use, mixed_linear
from experts.kinds.base import Adapter, Fitted, Kind, Site
from experts.kinds.names import PREFIX, place, require_finite
from experts.weights import ExpertWeights, SiteTensors

SERVED = {"peft_type", "activation", "target_modules"}
PARTS = {"D": "down.weight", "b": "down.bias", "U": "up.weight", "c": "up.bias"}
INITIAL_SCALE = 1e-3  # DAM's initialisation: N(0, 1e-3) clamped to two deviations


class Bottleneck(Kind):
    """Two small linear layers around a ReLU, added to a residual projection's output."""

    name = "bottleneck"
    peft_type = "SAILPLANE_BOTTLENECK"

    def fit(self, adapter: Adapter, sites: Mapping[str, Site], id: str) -> Fitted:
        """See `Kind.fit`."""
        activation = adapter.config.get("activation", "relu")
        if activation != "relu":
            raise UnsupportedExpert(f"activation={activation!r}: only relu is served.")
        if extra := sorted(k for k, v in adapter.config.items() if v and k not in SERVED):
            raise UnsupportedExpert(f"Not served: {', '.join(extra)}.", features=extra)
        found: dict[str, dict[str, Tensor]] = {}
        foreign: list[str] = []
        for name, tensor in adapter.tensors.items():
            module, part = _split(name)
            if part and part not in found.get(module, {}):
                found.setdefault(module, {})[part] = tensor
            else:
                foreign.append(name)
        shapes = {
            s.name: {"D": (None, s.out_features), "b": (None,), "U": (s.out_features, None),
                     "c": (s.out_features,)}
            for s in sites.values() if s.residual
        }  # fmt: skip
        placed, inert = place(found, foreign, shapes, sites)
        for site, t in placed.items():
            if not t["D"].shape[0] == t["b"].shape[0] == t["U"].shape[1]:
                raise MismatchedExpert(
                    f"The widths of down and up at {site} differ.", unmatched=[site]
                )
        require_finite(placed)
        return Fitted(ExpertWeights(id, self.name, self.group(placed), placed, inert=inert))

    def write(self, expert: ExpertWeights) -> Adapter:
        """See `Kind.write`."""
        tensors = {
            f"{PREFIX}{site}.{PARTS[part]}": tensor.contiguous()
            for site, parts in expert.sites.items()
            for part, tensor in parts.items()
        }
        config = {"peft_type": self.peft_type, "activation": "relu",
                  "target_modules": sorted(expert.sites)}  # fmt: skip
        return Adapter(config, tensors)

    def target_sites(self, sites: Iterable[Site]) -> list[Site]:
        """Attention and feed-forward output projections."""
        return [s for s in sites if s.residual and s.reaches_output]

    def initial(
        self, sites: Iterable[Site], *, rank: int, generator: torch.Generator
    ) -> dict[str, dict[str, Tensor]]:
        """DAM's initialisation; `rank` is the bottleneck's width H."""

        def small(*shape: int) -> Tensor:
            drawn = torch.randn(*shape, generator=generator) * INITIAL_SCALE
            return drawn.clamp_(-2 * INITIAL_SCALE, 2 * INITIAL_SCALE)

        return {
            s.name: {"D": small(rank, s.out_features), "b": small(rank),
                     "U": small(s.out_features, rank), "c": small(s.out_features)}
            for s in sites
        }  # fmt: skip

    def group(self, sites: Mapping[str, SiteTensors]) -> Hashable:
        """Parameter-space merging needs the same sites and shapes."""
        return ("bottleneck", *sorted((s, tuple(t["D"].shape)) for s, t in sites.items()))

    def group_text(self, sites: Mapping[str, SiteTensors]) -> str:
        """`bottleneck/<widths>/<digest of sites and shapes>`."""
        widths = sorted({t["D"].shape[0] for t in sites.values()})
        digest = hashlib.sha256(repr(self.group(sites)).encode()).hexdigest()
        return f"{self.name}/{'+'.join(map(str, widths))}/{digest[:12]}"

    def stack(self, per_expert: Sequence[SiteTensors | None]) -> dict[str, Tensor]:
        """Plain stacks: within a merge group every expert has every site."""
        present = [t for t in per_expert if t is not None]
        if len(present) != len(per_expert):
            raise MixError("Bottleneck experts with different sites cannot be merged.")
        return {part: torch.stack([t[part] for t in present]) for part in PARTS}

    def apply(
        self, y_NO: Tensor, x_ND: Tensor, stack: Mapping[str, Tensor], use: Use,
        strength_B: Tensor | None,
    ) -> Tensor:  # fmt: skip
        """`y + strength (U_mix act(D_mix y + b_mix) + c_mix)`."""
        h_NH = F.relu(mixed_linear(y_NO, stack["D"], stack["b"], use))
        update_NO = mixed_linear(h_NH, stack["U"], stack["c"], use)
        if strength_B is not None:
            update_NO = update_NO * use.per_token_rows(strength_B.unsqueeze(1))
        return y_NO + update_NO

    def merge(self, experts: Sequence[ExpertWeights], weights: Sequence[float]) -> ExpertWeights:
        """The weighted mean of the parameters."""
        if len({e.group for e in experts}) > 1:
            raise MixError("Bottleneck experts merge only when sites and widths are equal.")
        if any(not w >= 0 for w in weights):
            raise MixError("Bottleneck experts merge only at weights that are not negative.")
        merged = {
            site: {
                part: sum((e.sites[site][part] * w for e, w in zip(experts, weights, strict=True)),
                          start=torch.zeros_like(tensor))
                for part, tensor in parts.items()
            }
            for site, parts in experts[0].sites.items()
        }  # fmt: skip
        return ExpertWeights("+".join(e.id for e in experts), self.name, experts[0].group, merged)


def _split(name: str) -> tuple[str, str | None]:
    """A tensor's module and part; part None when the name is not ours."""
    for part, suffix in PARTS.items():
        if name.endswith(f".{suffix}"):
            return name.removeprefix(PREFIX).removesuffix(f".{suffix}"), part
    return name, None
