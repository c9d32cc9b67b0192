"""Two tiny language models, each with experts, whose rows spread over the lanes as many would."""

from __future__ import annotations

import pytest

from tests.language_models import stage as stage


@pytest.fixture(autouse=True)
def spread(monkeypatch: pytest.MonkeyPatch) -> None:
    """Few rows keep to one lane: here they do not."""
    monkeypatch.setattr("server.engine.generation.batch.FEW", 0)
