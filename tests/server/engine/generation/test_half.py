"""Half precision on the CPU: every mode writes, the same each time, and begins as float32 does."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

import pytest
import torch

from experts.backbones import open_backbone
from experts.decoding.likelihood import Ranked
from experts.errors import BackboneError
from server.engine.run import Engine
from tests.architectures import write_checkpoint
from tests.language_models import Listener, ask, finish, merged, per_token, prompts, single
from tests.server.api.writing_material import engine_of

CLEAR = {("causal", "bfloat16"): 0.3, ("causal", "float16"): 0.1, ("seq2seq", "float16"): 0.1}
"""Leads of the best token that rounding does not take away, where the weights of all tokens are
given. The random T5 magnifies rounding to bfloat16 up to whole logits, in transformers too."""
FAMILIES = ("causal", "seq2seq")
SELECTIONS = {
    "bare": single(None),
    "one": single("sum"),
    "merged": merged({"sum": 0.3, "plural": 0.7}),
    "by gates": per_token(["sum", "plural", "reverse"]),
    "by arrow": per_token(["sum", "plural"], "arrow", 1),
}


@pytest.fixture(scope="module", params=FAMILIES)
def engines(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Mapping[str, Engine]:
    root: Path = tmp_path_factory.mktemp(request.param)
    return {dtype: engine_of(request.param, root / dtype, dtype=dtype)
            for dtype in ("float32", "bfloat16", "float16")}  # fmt: skip


def written(engine: Engine, names: Iterable[str] = SELECTIONS) -> list[Listener]:
    loop = engine.generation
    asked = [
        ask(loop, prompt, SELECTIONS[name], logprobs=2, ignore_eos=True)
        for name in names
        for prompt in prompts(6, 4, 11, 30, 19)
    ]
    finish(loop)
    return asked


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_texts_are_sound_and_the_same_each_time(engines, dtype):
    assert str(engines[dtype].backbone.dtype) == f"torch.{dtype}"
    for one, again in zip(written(engines[dtype]), written(engines[dtype]), strict=True):
        assert one.error is None
        assert len(one.tokens()) == 12
        assert one.told == again.told
        assert all(t.logprob <= 0 for piece in one.pieces_of() for t in piece.tokens)


def test_texts_begin_as_in_float32(engines):
    family = engines["float32"].backbone.id.removeprefix("tiny-")
    given = [name for name in SELECTIONS if not name.startswith("by ")]
    exact = written(engines["float32"], given)
    for dtype in (dtype for known, dtype in CLEAR if known == family):
        clear = 0
        for wide, half in zip(exact, written(engines[dtype], given), strict=True):
            (_, best), (_, second) = wide.pieces_of()[0].tokens[0].alternatives
            if best - second > CLEAR[family, dtype]:
                clear += 1
                assert half.tokens()[0] == wide.tokens()[0]
        assert clear >= 5


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_what_is_read_and_ranked_is_near_float32(engines, dtype):
    exact, half = (engines[d].backbone for d in ("float32", dtype))
    assert half.fingerprint == exact.fingerprint
    texts = ["1 + 2", "The plural of a word that is long enough to need some padding.", "x"]
    for read in ("embed", "features"):
        one, other = (getattr(backbone, read)(texts).float() for backbone in (exact, half))
        torch.testing.assert_close(other, one, rtol=0, atol=0.05)
    ranked = [Ranked(text, prompts(9, 1, 5)) for text in prompts(8, 3, 12)]
    with torch.inference_mode():
        for one, other in zip(exact.rank(ranked), half.rank(ranked), strict=True):
            torch.testing.assert_close(other, one, rtol=0.05, atol=0.05)


def test_what_cannot_compute_in_a_type_is_refused(tmp_path):
    t5 = write_checkpoint(tmp_path, "t5", {})
    with pytest.raises(BackboneError, match=r"in torch.float16: .*wo .*Choose bfloat16"):
        open_backbone(str(t5.folder), dtype="float16")
    with pytest.raises(BackboneError, match=r"'tiny-random' .* float32 only"):
        open_backbone("tiny-random", dtype="bfloat16")
    for name in ("tiny-random", "tiny-causal"):
        with pytest.raises(BackboneError, match=r"cannot be quantised"):
            open_backbone(name, quantization="8bit")
