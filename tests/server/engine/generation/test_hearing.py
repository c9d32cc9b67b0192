"""Who wrote each token: as a pass over all before it tells, whoever else is in the batch."""

from __future__ import annotations

import pytest
import torch

from experts.mix import build_mix
from experts.stacks import stack_experts
from routers.token import TOKEN_ROUTERS
from server.engine.passes import row_mix
from tests.language_models import Stage, ask, finish, merged, per_token, prompts, single

CHOSEN = {"by gates": per_token(["a", "b", "c"]), "by arrow": per_token(["a", "c"], "arrow", 1)}
BESIDE = [per_token(["b", "c"]), per_token(["a", "b"], "arrow"), merged({"a": 0.5, "c": 0.5}),
          single("b"), single(None)]  # fmt: skip


def wrote(listener, index=0):
    return [dict(t.experts) for p in listener.pieces_of(index) for t in p.tokens]


def slowly(stage: Stage, prompt, selection, written):
    """The mean over sites of what the last token of a whole pass chose."""
    refs = [stage.experts[ref] for ref in selection.refs]
    stack, seen = stack_experts(refs), {}

    def recorder(site, use):
        seen[site] = use.dense_weight_NE[-1]

    router = TOKEN_ROUTERS[selection.token_router]
    with torch.inference_mode():
        stage._next(prompt, written, build_mix([row_mix(selection)], [stack], router, recorder))
    heard = [weight_E for site, weight_E in seen.items() if site not in stage.backbone.source_sites]
    mean_E = torch.stack(heard).mean(dim=0).tolist()
    return {ref.partition("@")[0]: w for ref, w in zip(stack.index, mean_E, strict=True) if w > 0}


@pytest.mark.parametrize("selection", CHOSEN.values(), ids=CHOSEN)
def test_who_wrote_a_token_is_what_a_whole_pass_says(stage: Stage, selection) -> None:
    for prompt in prompts(5, 1, 9):
        loop = stage.loop()
        told = ask(loop, prompt, selection, listens=True, ignore_eos=True, max_tokens=6)
        finish(loop)
        found, tokens = wrote(told), told.tokens()
        assert len(found) == len(tokens) == 6
        for i, by in enumerate(found):
            assert by == pytest.approx(slowly(stage, prompt, selection, tokens[:i]), abs=1e-4)


@pytest.mark.parametrize("chunk", [3, 512])
@pytest.mark.parametrize("selection", CHOSEN.values(), ids=CHOSEN)
def test_it_does_not_depend_on_who_is_beside(stage: Stage, selection, chunk) -> None:
    (prompt,) = prompts(6, 11)
    alone, crowd = stage.loop(), stage.loop(chunk_tokens=chunk)
    expected = ask(alone, prompt, selection, listens=True, ignore_eos=True)
    finish(alone)
    others = [ask(crowd, p, s, ignore_eos=True)
              for p, s in zip(prompts(7, 4, 9, 2, 7, 5), BESIDE, strict=True)]  # fmt: skip
    told = ask(crowd, prompt, selection, listens=True, ignore_eos=True)
    finish(crowd)
    assert told.tokens() == expected.tokens()
    for mine, theirs in zip(wrote(told), wrote(expected), strict=True):
        assert mine == pytest.approx(theirs, abs=1e-4)
    assert not any(by for other in others for by in wrote(other))  # nobody else is told


def test_texts_of_one_prompt_are_each_told_their_own(stage: Stage) -> None:
    (prompt,), selection = prompts(8, 6), CHOSEN["by gates"]
    loop = stage.loop()
    told = ask(loop, prompt, selection, count=3, listens=True, ignore_eos=True, temperature=1.5,
               seed=3)  # fmt: skip
    finish(loop)
    first = [wrote(told, i)[0] for i in range(3)]
    for other in first[1:]:  # the prompt chose them
        assert other == pytest.approx(first[0])
    for i in range(3):
        tokens = told.tokens(i)
        for n, by in enumerate(wrote(told, i)):
            assert by == pytest.approx(slowly(stage, prompt, selection, tokens[:n]), abs=1e-4)


def test_nobody_listens_unless_somebody_asks(stage: Stage) -> None:
    loop = stage.loop()
    told = ask(loop, prompts(9, 5)[0], CHOSEN["by gates"], ignore_eos=True)
    finish(loop)
    assert not any(wrote(told))
