"""Examples sent along with an expert: inputs of its task, some with the label they have."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

from pydantic import AfterValidator, Discriminator, Field, Tag

from experts.training.data import Example
from server.api.wire.base import Text, Wire, invalid, shape_of
from server.errors import RequestError

MAX_EXAMPLES, MAX_LABELLED = 256, 4096
NAMED = 8  # labels that a refusal names


class LabelledExample(Wire):
    """An input, and which of the expert's labels it has."""

    input: Text
    label: Text


def _bounded(
    examples: tuple[str | LabelledExample, ...],
) -> tuple[str | LabelledExample, ...]:
    """Bare inputs are read before the answer, so there may be few; the rest has time."""
    if sum(isinstance(e, str) for e in examples) > MAX_EXAMPLES:
        raise invalid(f"must have at most {MAX_EXAMPLES} examples without a label")
    return examples


Examples = Annotated[
    tuple[
        Annotated[
            Annotated[Text, Tag("<text>")] | Annotated[LabelledExample, Tag("<labelled>")],
            Discriminator(
                shape_of((str, "<text>"), ((dict, LabelledExample), "<labelled>")),
                custom_error_type="text_or_labelled",
                custom_error_message="must be an input, or an object with input and label",
            ),
        ],
        ...,
    ],
    Field(max_length=MAX_LABELLED),
    AfterValidator(_bounded),
]


def inputs_of(examples: Sequence[str | LabelledExample]) -> list[str]:
    """All inputs, with a label or without."""
    return [e if isinstance(e, str) else e.input for e in examples]


def labelled(examples: Sequence[str | LabelledExample], labels: Sequence[str]) -> list[Example]:
    """The examples with a label, put as questions among an expert's labels.

    Raises:
        RequestError: one has a label that the expert has not.
    """
    place = {label: i for i, label in enumerate(labels)}
    found: list[Example] = []
    for i, example in enumerate(examples):
        if isinstance(example, str):
            continue
        if example.label not in place:
            more = ", ..." if len(labels) > NAMED else ""
            told = f"it has {', '.join(labels[:NAMED])}{more}" if labels else "send its choices too"
            raise RequestError(
                f"examples[{i}].label is none of the expert's labels: {told}.",
                param=f"examples[{i}].label",
            )
        found.append(Example(example.input, tuple(labels), place[example.label]))
    return found
