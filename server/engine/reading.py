"""Step 3: the tokens of each input, and whether all that is said fits the backbone.

What is too long is an error unless its caller allowed a cut, and then the trace says what was cut.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from experts.backbones import Backbone
from experts.embedder import Embedder
from experts.errors import InputTooLong
from server.engine.messages import Cut, Sample
from server.engine.work import Work, alive


def read(backbone: Backbone, embedder: Embedder, board: Sequence[Work]) -> None:
    """Tokenise the inputs of the samples that are alive, and measure their callers' words.

    Words must fit both models that read them.
    """
    works, limit = alive(board), backbone.max_tokens
    texts = list(dict.fromkeys(w.sample.input for w in works))
    rows = dict(zip(texts, backbone.tokens(texts), strict=True)) if texts else {}
    spelled: dict[str, tuple[str, ...]] = {}
    for work in works:
        row = rows[work.sample.input]
        work.tokens = backbone.cut(row)
        if work.sample.options.trace == "tokens":
            text = work.sample.input
            if text not in spelled:
                spelled[text] = backbone.spelling.read(work.tokens)
            work.spelled = spelled[text]
        cuts = [Cut("input", len(row), limit)] if len(row) > limit else []
        cuts += [cut for model in {id(m): m for m in (backbone, embedder)}.values()
                 for cut in _too_long(model, work.sample)]  # fmt: skip
        if cuts and not work.sample.options.truncate:
            work.error = InputTooLong(cuts[0].sent, cuts[0].kept, cuts[0].part)
        work.truncated = tuple(cuts)


def _too_long(model: Embedder, sample: Sample) -> Iterator[Cut]:
    """What a model cuts of the caller's words; most are too short to be counted."""
    for part, text in _words(sample):
        if len(text.encode("utf-8", "surrogatepass")) + 2 > model.max_tokens:
            tokens = model.count(text)
            if tokens > model.max_tokens:
                yield Cut(part, tokens, model.max_tokens)


def _words(sample: Sample) -> Iterator[tuple[str, str]]:
    """What the caller says beside the input, by the name of its field."""
    if sample.options.instruction:
        yield "routing.instruction", sample.options.instruction
    if sample.question is not None:
        yield "instructions", sample.question.instructions
        field = "levels" if sample.question.type == "score" else "choices"
        for i, choice in enumerate(sample.question.choices):
            yield f"{field}[{i}]", choice.text
