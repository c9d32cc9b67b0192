"""Step 9 for language models: a question is answered by how likely each choice is to be written.

The prompt is the question's instructions and the input, a line each; a choice follows it. Choices
are compared by their mean logarithmic probability a token, so that long ones are not at a
disadvantage. Knows nothing of who was selected or why.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial

import torch

from experts.backbones import LanguageModel
from experts.decoding.likelihood import Ranked
from experts.errors import InputTooLong
from experts.library import Entry
from experts.mix import build_mix
from experts.stacks import StackCache
from experts.weights import ExpertWeights
from routers.token import TOKEN_ROUTERS
from server.engine.answering import judges_statement, offered
from server.engine.messages import Answer, Choice, Question
from server.engine.passes import (
    board_mix,
    by_router,
    require_few_weights,
    row_mix,
    wants_tokens,
)
from server.engine.recorder import SiteRecorder
from server.engine.work import Work, alive
from server.errors import RequestError

TRUTH = (Choice(True), Choice(False))
NOTHING = "The question has no choices and no selected expert has labels."
ALIKE = "The backbone cannot tell {names} apart; say them in other words."


def rank(
    backbone: LanguageModel, stacks: StackCache, experts: Mapping[str, ExpertWeights],
    entries: Mapping[str, Entry], board: Sequence[Work],
) -> None:  # fmt: skip
    """Set `answer` of every sample with a question, or the error that it is too long."""
    asked: list[tuple[Work, tuple[Choice, ...], Ranked]] = []
    for work in board:
        choices = _choices(work, entries)
        if choices:
            _prepare(backbone, work, choices, asked)
        else:
            work.answer = Answer(refusal=NOTHING)
    ranked_of = {id(work): (choices, ranked) for work, choices, ranked in asked}
    for router, works in by_router(alive([work for work, _, _ in asked])).items():
        mix = board_mix([w.selection for w in works], experts, stacks, router)
        found = backbone.rank([ranked_of[id(w)][1] for w in works], mix)
        for work, mean_C in zip(works, found, strict=True):
            choices, ranked = ranked_of[id(work)]
            work.answer = _answer(work, choices, ranked, mean_C)
            if work.sample.options.listens:
                best = Ranked(ranked.text, [ranked.choices[int(mean_C.argmax())]])
                try:
                    listen(backbone, stacks, experts, work, best)
                except RequestError as error:
                    work.error = error


def listen_again(
    backbone: LanguageModel, stacks: StackCache, experts: Mapping[str, ExpertWeights], work: Work
) -> None:
    """Set what the trace tells of the tokens of a text that was written before; see `listen`."""
    if work.sample.record:
        read, written = work.sample.record
        listen(backbone, stacks, experts, work, Ranked(read, [written]))


def listen(
    backbone: LanguageModel, stacks: StackCache, experts: Mapping[str, ExpertWeights], work: Work,
    ranked: Ranked,
) -> None:  # fmt: skip
    """Set what the trace tells of the tokens of a text and its one continuation.

    What they chose at every site costs a pass, to listen.
    """
    written, whole = ranked.choices[0], work.sample.options.trace == "tokens"
    if whole:
        work.spelled = backbone.spelling.read([*ranked.text, *backbone.start, *written])
        work.written = len(written)
    if not wants_tokens(work):
        return
    row = row_mix(work.selection)
    if whole:
        require_few_weights(len(work.spelled), len(backbone.sites), len(row.parts))
    stack = stacks.get([experts[p.expert] for p in row.parts])
    first = partial(_first, backbone, len(ranked.text))
    recorder = SiteRecorder(stack[0].ids, whole=whole, first=first)
    router = TOKEN_ROUTERS[work.selection.token_router or "constant"]
    backbone.rank([ranked], build_mix([row], stack, router, recorder))
    work.token_traces = recorder.traces


def _first(backbone: LanguageModel, read: int, site: str) -> int:
    """The first token that a site sees, where a text of `read` tokens stands before the others."""
    anatomy = backbone.anatomy
    own = read if anatomy.source else 0
    if site in anatomy.kept_sites:  # the last before what is written, and that itself
        return (own + len(backbone.start) if anatomy.source else read) - 1
    return 0 if site in backbone.source_sites else own


def _prepare(
    backbone: LanguageModel, work: Work, choices: tuple[Choice, ...],
    asked: list[tuple[Work, tuple[Choice, ...], Ranked]],
) -> None:  # fmt: skip
    """Tokens of a question's prompt and choices."""
    text = _prompt(work)
    read = [backbone.choice_tokens(text, _said(c)) for c in choices]
    prompt, longest = read[0][0], max(len(ids) for _, ids in read)
    total = max(len(prompt), longest) if backbone.anatomy.source else len(prompt) + longest
    if total > backbone.context:
        work.error = InputTooLong(total, backbone.context, "the prompt with its longest choice")
    else:
        asked.append((work, choices, Ranked(prompt, [ids for _, ids in read])))


def _answer(
    work: Work, choices: tuple[Choice, ...], ranked: Ranked, mean_C: torch.Tensor
) -> Answer:
    question = work.sample.question
    assert question is not None
    p_C = torch.softmax(mean_C, dim=0).tolist()
    if question.type == "predicate":
        return Answer((p_C[0],))
    best = max(range(len(p_C)), key=p_C.__getitem__)
    same = [i for i, ids in enumerate(ranked.choices) if list(ids) == list(ranked.choices[best])]
    if len(same) > 1:
        return Answer(refusal=ALIKE.format(names=_names(question, same)))
    return Answer(tuple(p_C), choices, tuple(mean_C.tolist()))


def _names(question: Question, places: Sequence[int]) -> str:
    given = "levels" if question.type == "score" else "choices"
    field = given if question.choices else "labels"
    return " and ".join(f"{field}[{i}]" for i in places)


def _choices(work: Work, entries: Mapping[str, Entry]) -> tuple[Choice, ...]:
    question = work.sample.question
    if question is not None and judges_statement(question) and not question.choices:
        return TRUTH
    return offered(work, entries)


def _prompt(work: Work) -> str:
    question = work.sample.question
    told = question.instructions if question else ""
    return f"{told}\n{work.sample.input}" if told else work.sample.input


def _said(choice: Choice) -> str:
    """What is written for a choice; its description is for people and for routing."""
    return str(choice.value).lower() if isinstance(choice.value, bool) else choice.value
