"""Two tiny language models, each with experts."""

from tests.language_models import stage as stage
