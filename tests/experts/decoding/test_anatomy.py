"""Sites that read the same tensor are found, and the token router weighs them in one go."""

from __future__ import annotations

from routers.token import TOKEN_ROUTERS
from tests.language_models import Stage, ask, finish, per_token, prompts

SHARING = {
    "causal": [("q_proj", "k_proj", "v_proj"), ("gate_proj", "up_proj")],
    "seq2seq": [("SelfAttention.q", "SelfAttention.k", "SelfAttention.v")],
}


def test_projections_of_one_input_are_siblings_and_no_others(stage: Stage) -> None:
    siblings = stage.backbone.anatomy.siblings
    for names in SHARING[stage.family]:
        for site in siblings:
            if site.endswith(names[0]) and "encoder." not in site:
                stem = site.removesuffix(names[0])
                assert siblings[site] == tuple(stem + name for name in names)
    alone = [s for s in siblings if s.endswith(("o_proj", "down_proj", "SelfAttention.o", "wo"))]
    assert alone
    assert all(siblings[s] == (s,) for s in alone)


def test_siblings_are_scored_once(stage: Stage, monkeypatch) -> None:
    calls: list[int] = []
    gate = TOKEN_ROUTERS["gate"]
    scores = type(gate).scores

    def counted(self, x_ND, V_ED, use):
        calls.append(len(x_ND))
        return scores(self, x_ND, V_ED, use)

    monkeypatch.setattr(type(gate), "scores", counted)
    loop = stage.loop()
    ask(loop, prompts(8, 3)[0], per_token(["a", "b"]), max_tokens=3, ignore_eos=True)
    loop.step()
    calls.clear()
    loop.step()
    siblings = stage.backbone.anatomy.siblings
    expert = next(iter(stage.experts.values()))
    read = stage.backbone.anatomy.source_sites
    sites = [s for s in expert.sites if s in siblings and s not in read]
    groups = {tuple(o for o in siblings[s] if o in expert.sites) for s in sites}
    assert len(calls) == len(groups) < len(sites)
    finish(loop)
