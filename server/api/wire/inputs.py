"""The input of a request as text: a string, or a list of messages, tool calls and outputs.

How a list becomes one text, in the list's order:
- the text parts of one item are joined by newlines; a JSON part stands as compact JSON;
- a tool call stands as `name(arguments)`, its output as its text;
- a list of one message is that message's text; in a longer list every item is one paragraph that
  starts with who speaks (`user: ...`, `call: ...`, `output: ...`): that can change the answer.

`id`, `status`, `phase` and `prompt_cache_breakpoint` are accepted and have no effect: they are
bookkeeping of the client and say nothing about the input. Images answer 422.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Annotated, Literal, TypeVar

from pydantic import AfterValidator, BeforeValidator, Discriminator, Field, JsonValue, Tag

from server.api.wire.base import Wire, invalid, shape_of, unsupported

JSON_LEVELS, JSON_VALUES, JSON_BYTES = 32, 10_000, 256 * 2**10
T = TypeVar("T")
Bounded = Annotated[list[T], Field(max_length=1024)]
"""A list of items or parts: checking one without a bound would block the event loop."""
Status = Literal["in_progress", "completed", "incomplete"] | None


class CacheBreakpoint(Wire):
    """Marks a reusable prefix: no effect here."""

    mode: Literal["explicit"]


class TextPart(Wire):
    """A piece of text."""

    type: Literal["input_text"]
    text: str
    prompt_cache_breakpoint: CacheBreakpoint | None = None

    def render(self) -> str:
        """The text."""
        return self.text


class JsonPart(Wire):
    """JSON that is read as text."""

    type: Literal["input_json"]
    data: Annotated[
        Annotated[dict[str, JsonValue], Tag("<object>")]
        | Annotated[list[dict[str, JsonValue]], Tag("<list>")],
        Discriminator(
            shape_of((dict, "<object>"), (list, "<list>")),
            custom_error_type="object_or_list",
            custom_error_message="must be an object or a list of objects",
        ),
        AfterValidator(lambda data: _bounded(data)),
    ]

    def render(self) -> str:
        """Compact JSON."""
        return json.dumps(self.data, ensure_ascii=False, separators=(",", ":"))


class OutputText(Wire):
    """What an assistant said."""

    type: Literal["output_text"]
    text: str

    def render(self) -> str:
        """The text."""
        return self.text


class Refusal(Wire):
    """What an assistant said instead of an answer."""

    type: Literal["refusal"]
    refusal: str

    def render(self) -> str:
        """The text."""
        return self.refusal


def part_tag(part: object) -> str | None:
    """Tag of a content part."""
    return f"<{part.get('type')}>" if isinstance(part, dict) else None


def _no_image(part: object) -> object:
    if part_tag(part) == "<input_image>":
        raise unsupported("this backbone reads text only; images are not supported")
    return part


Part = Annotated[
    Annotated[TextPart, Tag("<input_text>")] | Annotated[JsonPart, Tag("<input_json>")],
    Discriminator(
        part_tag,
        custom_error_type="unknown_part",
        custom_error_message="must be an input_text or input_json part",
    ),
    BeforeValidator(_no_image),
]
TextOnly = Annotated[TextPart, BeforeValidator(_no_image)]
SpokenPart = Annotated[
    Annotated[OutputText, Tag("<output_text>")] | Annotated[Refusal, Tag("<refusal>")],
    Discriminator(
        part_tag,
        custom_error_type="unknown_part",
        custom_error_message="must be an output_text or refusal part",
    ),
]

text_or_list = Discriminator(
    shape_of((str, "<text>"), (list, "<list>")),
    custom_error_type="text_or_list",
    custom_error_message="must be a string or a list",
)


class Message(Wire):
    """A message of anyone but the assistant."""

    type: Literal["message"] = "message"
    role: Literal["user", "developer", "system"]
    content: Annotated[
        Annotated[str, Tag("<text>")] | Annotated[Bounded[Part], Tag("<list>")],
        text_or_list,
    ]

    def speaker(self) -> str:
        """Who speaks."""
        return self.role

    def render(self) -> str:
        """Its parts, joined by newlines."""
        return join(self.content)


class AssistantMessage(Wire):
    """A message of the assistant."""

    type: Literal["message"] = "message"
    role: Literal["assistant"]
    content: Annotated[
        Annotated[str, Tag("<text>")] | Annotated[Bounded[SpokenPart], Tag("<list>")],
        text_or_list,
    ]
    phase: Literal["commentary", "final_answer"] | None = None

    def speaker(self) -> str:
        """Who speaks."""
        return self.role

    def render(self) -> str:
        """Its parts, joined by newlines."""
        return join(self.content)


class _Call(Wire):
    call_id: str
    name: str
    id: str | None = None
    namespace: str | None = None
    status: Status = None

    def speaker(self) -> str:
        """What it is."""
        return "call"

    def _render(self, arguments: str) -> str:
        name = f"{self.namespace}.{self.name}" if self.namespace else self.name
        return f"{name}({arguments})"


class FunctionCall(_Call):
    """A call of a function."""

    type: Literal["function_call"]
    arguments: str

    def render(self) -> str:
        """`name(arguments)`."""
        return self._render(self.arguments)


class CustomToolCall(_Call):
    """A call of a custom tool."""

    type: Literal["custom_tool_call"]
    input: str

    def render(self) -> str:
        """`name(input)`."""
        return self._render(self.input)


class ToolOutput(Wire):
    """What a call gave; it must follow its call."""

    type: Literal["function_call_output", "custom_tool_call_output"]
    call_id: str
    output: Annotated[
        Annotated[str, Tag("<text>")] | Annotated[Bounded[TextOnly], Tag("<list>")],
        text_or_list,
    ]
    id: str | None = None
    status: Status = None

    def speaker(self) -> str:
        """What it is."""
        return "output"

    def render(self) -> str:
        """Its text."""
        return join(self.output)


def item_tag(item: object) -> str | None:
    """Tag of an input item."""
    if not isinstance(item, dict):
        return None
    sort = str(item.get("type", "message"))
    if sort == "message":
        return "<assistant>" if item.get("role") == "assistant" else "<message>"
    return "<output>" if sort.endswith("_call_output") else f"<{sort}>"


Item = Annotated[
    Annotated[Message, Tag("<message>")]
    | Annotated[AssistantMessage, Tag("<assistant>")]
    | Annotated[FunctionCall, Tag("<function_call>")]
    | Annotated[CustomToolCall, Tag("<custom_tool_call>")]
    | Annotated[ToolOutput, Tag("<output>")],
    Discriminator(
        item_tag,
        custom_error_type="unknown_item",
        custom_error_message="must be a message, a function or tool call, or its output",
    ),
]


def join(content: str | Sequence[TextPart | JsonPart | OutputText | Refusal]) -> str:
    """Text, or parts joined by newlines."""
    return content if isinstance(content, str) else "\n".join(part.render() for part in content)


def render_input(content: str | Sequence[Item]) -> str:
    """The whole input as one text (see the module's docstring)."""
    if isinstance(content, str):
        return content
    if len(content) == 1 and isinstance(content[0], Message | AssistantMessage):
        return content[0].render()
    return "\n".join(f"{item.speaker()}: {item.render()}" for item in content)


def _has_text(content: str | list[Item]) -> str | list[Item]:
    texts = [content] if isinstance(content, str) else [item.render() for item in content]
    if not any(text.strip() for text in texts):
        raise invalid("must not be empty")
    calls: set[str] = set()
    for item in () if isinstance(content, str) else content:
        if isinstance(item, ToolOutput) and item.call_id not in calls:
            raise invalid(f"the output of call {item.call_id!r} has no call before it")
        calls.add(getattr(item, "call_id", ""))
    return content


Input = Annotated[
    Annotated[
        Annotated[str, Tag("<text>")] | Annotated[Bounded[Item], Tag("<list>")],
        text_or_list,
    ],
    AfterValidator(_has_text),
]
"""A string or a list of items, with some text in it."""


def _bounded(data: JsonValue) -> JsonValue:
    level, values = [data], 0
    for _ in range(JSON_LEVELS):
        values += len(level)
        boxes = [v for v in level if isinstance(v, dict | list)]
        level = [v for box in boxes for v in (box.values() if isinstance(box, dict) else box)]
        if not boxes:
            break
    else:
        raise invalid(f"JSON parts may have {JSON_LEVELS} levels")
    if values > JSON_VALUES or len(json.dumps(data, ensure_ascii=False).encode()) > JSON_BYTES:
        raise invalid(f"JSON parts may have {JSON_VALUES} values and {JSON_BYTES} bytes")
    return data
