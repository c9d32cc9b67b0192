"""Shared by all tests: a tiny float64 backbone, and experts with random weights for it.

Nothing here reads the network or a data set. Hypothesis draws the same examples in every run.
"""

from __future__ import annotations

import faulthandler
import os
import sys
import threading
import time

os.environ.setdefault("HF_HUB_OFFLINE", "1")  # before anything imports huggingface_hub
# As `sailplane serve` has it, before anything imports torch: threads that spin beside those of
# another pass make both ten times slower.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ.setdefault("OMP_NUM_THREADS", "1")

from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path

import pytest
import torch
from hypothesis import settings
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.modules import Normalize, Pooling, Transformer
from transformers import BertConfig, BertModel

from experts.backbones import TextEncoder
from experts.backbones.tiny import tiny_encoder
from experts.kinds import KINDS
from experts.weights import ExpertWeights

settings.register_profile("sailplane", deadline=None, derandomize=True, max_examples=40)
settings.load_profile("sailplane")

ENDING = 60
"""Seconds that the threads of this process have to end once all tests have."""


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Show what a thread does that does not end, instead of waiting for it without a word.

    All tests are over by then: what they found stands.
    """

    def end() -> None:
        time.sleep(ENDING)
        faulthandler.dump_traceback(sys.__stderr__)
        with suppress(OSError, ValueError):  # nobody reads
            sys.stdout.flush()
        os._exit(session.exitstatus)

    threading.Thread(target=end, daemon=True).start()


TEXTS = (
    "Where is the nearest station?",
    "no",
    "A long and winding sentence about gliders, thermals and cloud streets.",
    "What a lovely day!",
    "Turn the radio down, please.",
)


@pytest.fixture(scope="session")
def sentence_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a random sentence-transformers model, 48 wide, that reads 64 tokens."""
    tokenizer = tiny_encoder().tokenizer
    config = BertConfig(
        vocab_size=len(tokenizer), hidden_size=48, num_hidden_layers=2, num_attention_heads=4,
        intermediate_size=64, max_position_embeddings=64,
    )  # fmt: skip
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(5)
        model = BertModel(config)
        with torch.no_grad():
            for parameter in model.parameters():
                if parameter.ndim > 1:
                    parameter.mul_(5)
    folder = tmp_path_factory.mktemp("sentence-model")
    model.save_pretrained(folder / "bert")
    tokenizer.save_pretrained(folder / "bert")
    bert = Transformer(str(folder / "bert"), max_seq_length=64)
    whole = SentenceTransformer(modules=[bert, Pooling(48, "mean"), Normalize()])
    whole.save(str(folder / "whole"))
    return folder / "whole"


MakeExpert = Callable[..., ExpertWeights]


@pytest.fixture(scope="session")
def encoder64() -> TextEncoder:
    """The tiny-random backbone in float64: equality tests run on it."""
    return tiny_encoder(dtype=torch.float64)


@pytest.fixture(scope="session")
def texts() -> tuple[str, ...]:
    """Five texts of different lengths, written for these tests."""
    return TEXTS


@pytest.fixture(scope="session")
def rows(encoder64: TextEncoder) -> list[list[int]]:
    """The token rows of `texts`."""
    return encoder64.tokenize(TEXTS)


@pytest.fixture(scope="session")
def make_expert(encoder64: TextEncoder) -> MakeExpert:
    """Build an expert of a kind with weights large enough to be seen: `make_expert("lora", "a")`.

    `rank` is one number, or a mapping from site to number; `vectors` lists artefacts to draw.
    """

    def make(
        kind: str,
        id: str,
        rank: int | Mapping[str, int] = 4,
        *,
        vectors: tuple[str, ...] = (),
        scale: float = 0.3,
        version: int = 1,
    ) -> ExpertWeights:
        maker = KINDS[kind]
        generator = torch.Generator().manual_seed(sum(map(ord, kind + id)) + version)
        targets = maker.target_sites(encoder64.sites.values())
        ranks = rank if isinstance(rank, Mapping) else {s.name: rank for s in targets}
        sites = {
            s.name: {
                part: torch.randn(t.shape, generator=generator, dtype=torch.float64) * scale
                for part, t in maker.initial([s], rank=ranks[s.name], generator=generator)[
                    s.name
                ].items()
            }
            for s in targets
            if s.name in ranks
        }
        drawn = {
            artefact: {
                s.name: torch.randn(s.in_features, generator=generator, dtype=torch.float64)
                for s in targets
                if s.name in ranks
            }
            for artefact in vectors
        }
        return ExpertWeights(id, kind, maker.group(sites), sites, vectors=drawn, version=version)

    return make
