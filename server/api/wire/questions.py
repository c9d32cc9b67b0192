"""The questions of a request: predicate, choice and score, as the OpenAI client sends them.

Two extensions: `instructions` may be absent from a choice or a score, and `choices` from a choice,
which then offers the routed expert's own label set.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Literal

from pydantic import AfterValidator, Discriminator, Field, StrictBool, StrictStr, Tag

from server.api.wire.base import Text, Wire, invalid, shape_of
from server.api.wire.inputs import Bounded, Part, join, text_or_list
from server.engine.messages import Choice, Question

MAX_CHOICES, MAX_QUESTIONS = 255, 400


def _some_text(content: str | list[Part]) -> str | list[Part]:
    if not join(content).strip():
        raise invalid("must not be empty")
    return content


Instructions = Annotated[
    Annotated[str, Tag("<text>")] | Annotated[Bounded[Part], Tag("<list>")],
    text_or_list,
    AfterValidator(_some_text),
]


class ChoiceOption(Wire):
    """One option. A string and a boolean with the same text are two options."""

    value: Annotated[
        Annotated[StrictStr, Field(min_length=1), Tag("<string>")]
        | Annotated[StrictBool, Tag("<boolean>")],
        Discriminator(
            shape_of((str, "<string>"), (bool, "<boolean>")),
            custom_error_type="string_or_boolean",
            custom_error_message="must be a string or a boolean",
        ),
    ]
    description: str | None = None

    def to_choice(self) -> Choice:
        """For the engine."""
        return Choice(self.value, self.description)


class LevelOption(Wire):
    """One level of a score."""

    label: Text
    description: str | None = None

    def to_choice(self) -> Choice:
        """For the engine."""
        return Choice(self.label, self.description)


def _distinct(
    options: Sequence[ChoiceOption | LevelOption],
) -> Sequence[ChoiceOption | LevelOption]:
    seen: set[tuple[type, str | bool]] = set()
    for choice in (option.to_choice() for option in options):
        key = (type(choice.value), choice.value)
        if key in seen:  # an answer names the value alone, whatever its description
            raise invalid(f"must be unique, and {choice.value!r} is there twice")
        seen.add(key)
    return options


Choices = Annotated[
    list[ChoiceOption], Field(min_length=2, max_length=MAX_CHOICES), AfterValidator(_distinct)
]
Levels = Annotated[
    list[LevelOption], Field(min_length=2, max_length=MAX_CHOICES), AfterValidator(_distinct)
]


class Predicate(Wire):
    """How likely is it that a statement about the input is true?"""

    type: Literal["predicate"]
    instructions: Instructions
    name: str | None = None

    def to_question(self) -> Question:
        """For the engine."""
        return Question("predicate", join(self.instructions), (), self.name)


class ChoiceQuestion(Wire):
    """Which of the options fits the input?"""

    type: Literal["choice"]
    instructions: Instructions | None = None
    choices: Choices | None = Field(
        default=None, description="Absent: the routed expert's own label set."
    )
    name: str | None = None

    def to_question(self) -> Question:
        """For the engine."""
        choices = tuple(option.to_choice() for option in self.choices or ())
        return Question("choice", join(self.instructions or ""), choices, self.name)


class ScoreQuestion(Wire):
    """How far up the ordered levels is the input?"""

    type: Literal["score"]
    levels: Levels
    instructions: Instructions | None = None
    name: str | None = None

    def to_question(self) -> Question:
        """For the engine."""
        levels = tuple(level.to_choice() for level in self.levels)
        return Question("score", join(self.instructions or ""), levels, self.name)


def _question_tag(question: object) -> str | None:
    return f"<{question.get('type')}>" if isinstance(question, dict) else None


AnyQuestion = Annotated[
    Annotated[Predicate, Tag("<predicate>")]
    | Annotated[ChoiceQuestion, Tag("<choice>")]
    | Annotated[ScoreQuestion, Tag("<score>")],
    Discriminator(
        _question_tag,
        custom_error_type="unknown_question",
        custom_error_message="must be a predicate, choice or score question",
    ),
]
Questions = Annotated[list[AnyQuestion], Field(min_length=1, max_length=MAX_QUESTIONS)]
