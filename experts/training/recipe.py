"""How an expert is trained: every number in one frozen record, stored with the expert."""

from __future__ import annotations

from pydantic import Field, ValidationError

from experts.manifest import Record


class Recipe(Record):
    """Training settings. The defaults made the demo library.

    Attributes:
        rank: LoRA rank, or the bottleneck's width. min_steps: small tasks repeat their epochs up
            to this. max_tokens: longer inputs are cut in training (never when serving).
        statement_share: how often a label is named by a whole statement. foreign: labels of other
            tasks offered as wrong choices. noise: norm of Gaussian noise on choice embeddings;
            with it and the blending of wordings, an unseen wording is near something seen.
        examples: of each task, the first so many of its training examples; None takes all.
    """

    kind: str = "lora"
    rank: int = Field(default=8, ge=1)
    learning_rate: float = Field(default=2e-3, gt=0)
    epochs: int = Field(default=3, ge=1)
    min_steps: int = Field(default=150, ge=1)
    batch_size: int = Field(default=32, ge=1)
    warmup: float = 0.06
    tau: float = 0.05
    max_tokens: int = 160
    statement_share: float = 0.3
    foreign: int = 2
    noise: float = 0.5
    seed: int = 0
    examples: int | None = Field(default=None, ge=1)

    @classmethod
    def read(cls, stored: object) -> Recipe | None:
        """The recipe that a manifest tells; None where it tells none, or one of another release."""
        try:
            return cls.model_validate_json(stored) if isinstance(stored, str) else None
        except ValidationError:
            return None


class Retention(Record):
    """How an expert that learns one task after another keeps the former ones.

    Attributes:
        replay: the share of each former task's examples that experience replay remembers.
        ewc: the strength lambda of elastic weight consolidation. fisher: how many examples of a
            task its Fisher information is estimated from.
    """

    replay: float = Field(default=0.01, gt=0, le=1)
    ewc: float = Field(default=1000.0, ge=0)
    fisher: int = Field(default=256, ge=1)
