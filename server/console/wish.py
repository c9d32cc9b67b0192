"""What somebody asks in the console: a form's content, as a request and as a link.

A link keeps it behind `#`, which browsers send to nobody: no text of a request is in a log. Pure.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any, Literal, Self, cast
from urllib.parse import parse_qsl, urlencode

Sort = Literal["choice", "predicate", "score", "chat", "text"]
SORTS: dict[Sort, str] = {
    "choice": "Which of these?",
    "predicate": "Is it so?",
    "score": "How much?",
    "chat": "Write an answer",
    "text": "Go on with a text",
}
PATHS: dict[Sort, str] = {"chat": "/v1/chat/completions", "text": "/v1/completions"}
"""Of what is written; all else is decided."""
AUTO = "auto"
NUMBER = re.compile(r"[0-9]{1,6}")
MAX_TOKENS = 64


@dataclass(frozen=True)
class Wish:
    """One request of a visitor.

    Attributes:
        sort: of question, or of what is to be written. text: the input, or the prompt. instruction:
            what the task is, "" for the server's writer. options: choices or levels. model: auto,
            an expert or the backbone. router, mode: "" for the server's own. top_k: 0 likewise.
            experts: weights by hand, in the place of a router. max_tokens: of a text. truncate:
            whether an input that is too long is cut, which a prompt never is.
    """

    sort: Sort = "choice"
    text: str = ""
    instruction: str = ""
    options: tuple[str, ...] = ()
    model: str = AUTO
    router: str = ""
    mode: str = ""
    top_k: int = 0
    max_tokens: int = MAX_TOKENS
    truncate: bool = False
    experts: Mapping[str, float] = field(default_factory=dict)

    @property
    def path(self) -> str:
        """The route that answers it."""
        return PATHS.get(self.sort, "/v1/decisions")

    @property
    def writes(self) -> bool:
        """Whether text is asked for."""
        return self.sort in PATHS

    @property
    def way(self) -> str:
        """Who is to answer it, in words."""
        if self.model != AUTO:
            return self.model
        told = self._routing()
        weighed = " + ".join(f"{weight:g} {id}" for id, weight in self.experts.items())
        way = [weighed or (f"router {self.router}" if self.router else "the server's own router")]
        way += [f"mode {self.mode}"] if "mode" in told else []
        way += [f"experts at most {self.top_k}"] if "top_k" in told else []
        return ", ".join(way)

    def body(self, trace: str | None = "tokens", *, stream: bool = True) -> dict[str, Any]:
        """The request's body.

        Args:
            trace: how much of it to ask for; None asks for nothing. stream: whether text is to come
                as it is written.
        """
        routing = {**self._routing(), **({} if trace is None else {"trace": trace})}
        if self.truncate and not self.writes:
            routing["truncate"] = True
        asked = {"model": self.model} | self._asked()
        if self.writes:
            asked |= {"max_tokens": self.max_tokens, "temperature": 0, "stream": stream}
        return asked | ({"routing": routing} if routing else {})

    def _asked(self) -> dict[str, Any]:
        if self.sort == "text":
            return {"prompt": self.text}
        if self.sort == "chat":
            told = [{"role": "system", "content": self.instruction}] if self.instruction else []
            return {"messages": [*told, {"role": "user", "content": self.text}]}
        return {"input": self.text, "questions": [self._question()]}

    def _question(self) -> dict[str, Any]:
        asked: dict[str, Any] = {"type": self.sort}
        if self.instruction:
            asked["instructions"] = self.instruction
        if self.sort == "choice" and self.options:
            asked["choices"] = [{"value": o} for o in self.options]
        if self.sort == "score":
            asked["levels"] = [{"label": o} for o in self.options]
        return asked

    def _routing(self) -> dict[str, Any]:
        """What is said of routing: nothing that the server would refuse as being without effect."""
        if self.model != AUTO:
            return {}
        told: dict[str, Any] = {}
        if self.experts:
            told["experts"] = dict(self.experts)
            if self.mode == "token":
                told |= {"mode": "token"} | ({"top_k": self.top_k} if self.top_k else {})
            return told
        if self.sort == "text" and self.instruction:
            told["instruction"] = self.instruction
        given = {"router": self.router, "mode": self.mode, "top_k": self.top_k}
        return told | {name: value for name, value in given.items() if value}

    def to_link(self) -> str:
        """As what stands behind `#`; what is as usual is left out."""
        usual, said = Wish(), list[tuple[str, str]]()
        for one in fields(self):
            value = getattr(self, one.name)
            if value == getattr(usual, one.name):
                continue
            if one.name == "options":
                said += [("option", v) for v in value]
            elif one.name == "experts":
                said += [("expert", f"{weight:g}*{id}") for id, weight in value.items()]
            else:
                said.append((one.name, str(value)))
        return urlencode(said)

    @classmethod
    def of_link(cls, link: str) -> Self:
        """From what stands behind `#`; what makes no sense there is passed over."""
        wish, options, experts = cls(), list[str](), dict[str, float]()
        for name, value in parse_qsl(link.removeprefix("#"), keep_blank_values=True):
            if name == "option":
                options.append(value)
            elif name == "expert":
                weight, _, id = value.partition("*")
                if id and _number(weight) is not None:
                    experts[id] = cast("float", _number(weight))
            elif name in ("text", "instruction", "model", "router", "mode"):
                wish = replace(wish, **{name: value})
            elif name in ("top_k", "max_tokens") and NUMBER.fullmatch(value):
                wish = replace(wish, **{name: int(value)})
            elif name == "sort" and value in SORTS:
                wish = replace(wish, sort=value)
            elif name == "truncate":
                wish = replace(wish, truncate=value == str(True))
        return replace(wish, options=tuple(options), experts=experts)


def _number(text: str) -> float | None:
    try:
        value = float(text)
    except ValueError:
        return None
    return value if 0 <= value <= 1000 else None


def to_links(wishes: Sequence[Wish]) -> str:
    """Several wishes as one link."""
    return urlencode([("wish", wish.to_link()) for wish in wishes])


def of_links(link: str) -> list[Wish]:
    """Several wishes from one link; none where it holds none."""
    pairs = parse_qsl(link.removeprefix("#"), keep_blank_values=True)
    return [Wish.of_link(said) for name, said in pairs if name == "wish"]
