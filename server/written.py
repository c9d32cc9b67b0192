"""Texts that the engine writes in this thread, and how likely or right each is.

For commands that serve nobody meanwhile. Knows nothing of tasks, and does not choose who writes.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Sequence
from contextlib import aclosing
from dataclasses import replace

from experts.backbones import LanguageModel
from experts.errors import BackboneError, InputTooLong
from routers.types import Selection
from server.engine.generation.front import Writing
from server.engine.generation.loop import GenerationLoop
from server.engine.generation.messages import Prompt, Sampling
from server.engine.generation.request import Ticket
from server.engine.messages import Outcome, Sample
from server.engine.queue import Result
from server.engine.run import Engine
from server.errors import UnsoundLogits

STRETCH = 8
"""Tokens by which long texts are judged."""


def likelihoods(engine: Engine, texts: Sequence[str], samples: Sequence[Sample]) -> list[float]:
    """How probable it is that each text is written after its sample's input.

    Of a text of more than `STRETCH` tokens, that so many of them are, at their mean probability:
    of the whole there would be nothing to compare. What does not fit the context has none.

    Args:
        samples: each asks for its text, as the only choice.

    Raises:
        BackboneError: the backbone writes no text.
    """
    backbone, _ = require_writer(engine)
    found: list[float] = []
    for text, sample, result in zip(texts, samples, engine.run(samples), strict=True):
        told = _outcome(result)
        answer = told.answer if told else None
        tokens = min(STRETCH, len(backbone.choice_tokens(sample.input, text)[1]))
        found.append(math.exp(tokens * answer.logprobs[0]) if answer else 0.0)
    return found


def exact(engine: Engine, texts: Sequence[str], samples: Sequence[Sample]) -> list[float]:
    """1 where greedy decoding writes the text after its sample's input and then ends, else 0.

    Raises:
        BackboneError: the backbone writes no text.
    """
    backbone, _ = require_writer(engine)
    routed = engine.run([replace(sample, predict=False) for sample in samples])
    prompts: list[Prompt | None] = []
    for text, sample, result in zip(texts, samples, routed, strict=True):
        most = 1 + len(backbone.choice_tokens(sample.input, text)[1])
        told = _outcome(result)
        selection = told.trace.selection if told else None
        prompts.append(selection and prompt_of(backbone, sample.input, selection, most))
    written = iter(write(engine, [prompt for prompt in prompts if prompt]))
    said = [next(written) if prompt else None for prompt in prompts]
    return [float(one == text) for one, text in zip(said, texts, strict=True)]


def prompt_of(
    backbone: LanguageModel, text: str, selection: Selection, wanted: int
) -> Prompt | None:
    """A prompt as experts are trained with, greedily continued by at most `wanted` tokens.

    None where the context has no room for it.
    """
    read, _ = backbone.choice_tokens(text, "")
    room = backbone.context - (0 if backbone.anatomy.source else len(read))
    if len(read) > backbone.context or room < 1:
        return None
    return Prompt(tuple(read), selection, Sampling(min(wanted, room), temperature=0))


def write(engine: Engine, prompts: Sequence[Prompt]) -> list[str | None]:
    """What is written for each prompt; None where its numbers overflow.

    Raises:
        BackboneError: the backbone writes no text.
    """
    _, generation = require_writer(engine)
    return asyncio.run(_write(generation, prompts))


def require_writer(engine: Engine) -> tuple[LanguageModel, GenerationLoop]:
    """The backbone and the loop of an engine that writes.

    Raises:
        BackboneError: it does not.
    """
    backbone, generation = engine.backbone, engine.generation
    if not isinstance(backbone, LanguageModel) or generation is None:
        raise BackboneError(f"Backbone {backbone.id!r} writes no text; name one that does.")
    return backbone, generation


def _outcome(result: Result) -> Outcome | None:
    """An outcome; None where the input was too long. Any other error is raised."""
    if isinstance(result, InputTooLong):
        return None
    if not isinstance(result, Outcome):
        raise result
    return result


async def _write(generation: GenerationLoop, prompts: Sequence[Prompt]) -> list[str | None]:
    writing = Writing(generation, lambda: None, len(prompts))
    tickets = [writing.begin([prompt]) for prompt in prompts]
    while generation.busy:
        generation.step()
        await asyncio.sleep(0)
    return [await _text(ticket) for ticket in tickets]


async def _text(ticket: Ticket) -> str | None:
    try:
        async with aclosing(ticket.pieces()) as pieces:
            return "".join([piece.text async for piece in pieces])
    except UnsoundLogits:
        return None
