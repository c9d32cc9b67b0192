"""Load for a server that writes text: `locust -f deploy/load/locustfile_text.py --host URL`.

The questions are those of the demo writer (`make serve-text`): chat and completions, whole and
streamed. Shapes, usage and finish reasons are checked, a streamed text against the same text asked
for whole, and the answers that are sure. `locustfile.py` is for a server that answers questions.
"""

from __future__ import annotations

import json
from typing import Any

from answers import require
from callers import Caller, asking
from refusals import Refusal

CHAT, COMPLETIONS = "/v1/chat/completions", "/v1/completions"
WORDS = (
    "melon", "harbour", "lantern", "copper", "window", "silver", "garden", "bottle", "marble",
    "candle", "ribbon", "saddle",
)  # fmt: skip
ASKS = ("Write it in capitals.", "Spell it backwards.", "Put the letters in order.")
DATES = {
    "2024-03-07": "7 March 2024",
    "1998-10-28": "28 October 1998",
    "1994-05-04": "4 May 1994",
    "2021-08-16": "16 August 2021",
    "2021-01-27": "27 January 2021",
    "2014-07-20": "20 July 2014",
    "1990-12-15": "15 December 1990",
    "2007-12-26": "26 December 2007",
    "2010-01-01": "1 January 2010",
    "1991-11-18": "18 November 1991",
}
"""Where the demo writer is sure; of words it is a small model, and sometimes misspells them."""
TO_LONG, TO_ISO = "Spell out the month of this date.", "Convert this date to ISO."
DATED = frozenset({"date-to-long", "date-to-iso"})
BAD = (
    Refusal(
        "unknown model", 404, "model_not_found", CHAT,
        json.dumps({"model": "no-such", "messages": [{"role": "user", "content": "a"}]}).encode(),
    ),
    Refusal("malformed JSON", 400, "malformed_json", COMPLETIONS, b'{"model": "auto", "pro'),
    Refusal(
        "prompt of a wrong type", 422, "invalid_value", COMPLETIONS,
        json.dumps({"model": "auto", "prompt": {"text": "a"}}).encode(),
    ),
)  # fmt: skip


class Writer(Caller):
    """Has texts written."""

    def chat(self, stream: bool) -> tuple[dict[str, Any], str | None]:
        """A request, and its right answer where it is sure."""
        instruction, text, right = self.rng.choice(ASKS), self.rng.choice(WORDS), None
        if self.rng.random() < 0.5:
            iso, long = self.rng.choice([*DATES.items()])
            instruction, text, right = self.rng.choice([(TO_LONG, iso, long), (TO_ISO, long, iso)])
        asked: dict[str, Any] = {
            "model": "auto",
            "temperature": 0,
            "messages": [
                {"role": "system", "content": instruction},
                {"role": "user", "content": text},
            ],
        }
        if stream:
            asked |= {"stream": True, "stream_options": {"include_usage": True}}
        return asked, right if self.world.experts >= DATED else None

    def whole(self, told: Any, right: str | None) -> str:
        """Check a chat that came in one piece; what was written."""
        require(told["object"] == "chat.completion", "not a chat completion")
        (choice,) = told["choices"]
        require(choice["message"]["role"] == "assistant", "nobody answers")
        require(choice["finish_reason"] in ("stop", "length"), "no reason for the end")
        self.counted(told["usage"])
        self.routed(told["routing"])
        text = choice["message"]["content"]
        require(right is None or text == right, f"{text!r} was written where {right!r} is right")
        return text

    def counted(self, usage: Any) -> None:
        """Check the tokens."""
        require(usage["prompt_tokens"] > 0 and usage["completion_tokens"] > 0, "no tokens")
        total = usage["prompt_tokens"] + usage["completion_tokens"]
        require(usage["total_tokens"] == total, "bad usage")

    def routed(self, routing: Any) -> None:
        """Check that those who wrote are there."""
        named = {e["id"] for e in routing["selection"]["experts"]}
        require(named <= self.world.experts, f"experts that are not there wrote: {named}")

    @asking(4)
    def chats(self) -> None:
        """A chat in one piece."""
        asked, right = self.chat(stream=False)
        self.ask(CHAT, CHAT, asked, lambda t, _: self.whole(t, right))

    @asking(3)
    def streamed_chats(self) -> None:
        """A chat that streams, and the same in one piece: greedy texts are equal."""
        asked, right = self.chat(stream=True)
        pieces: list[str] = []

        def check(told: Any, _: object) -> None:
            events = events_of(told)
            require(all(e["object"] == "chat.completion.chunk" for e in events), "not chunks")
            deltas = [c["delta"].get("content") or "" for e in events for c in e["choices"]]
            pieces.append("".join(deltas))
            ends = [c["finish_reason"] for e in events for c in e["choices"] if c["finish_reason"]]
            require(len(ends) == 1, f"a stream with {len(ends)} ends")
            (usage,) = [e["usage"] for e in events if e.get("usage")]
            self.counted(usage)
            (routing,) = [e["routing"] for e in events if e.get("routing")]
            self.routed(routing)

        if self.ask(f"{CHAT} (stream)", CHAT, asked, check) is None:
            return
        whole = {k: v for k, v in asked.items() if not k.startswith("stream")}

        def equal(told: Any, _: object) -> None:
            text = self.whole(told, right)
            require(text == pieces[0], f"streamed {pieces[0]!r}, and {text!r} in one piece")

        self.ask(f"{CHAT} (again)", CHAT, whole, equal, follows=True)

    @asking(3)
    def completions(self) -> None:
        """A prompt to go on with, by instruction; every other one streams."""
        asked: dict[str, Any] = {
            "model": "auto",
            "prompt": f"{self.rng.choice(WORDS)}\n",
            "max_tokens": 24,
            "temperature": self.rng.choice((0, 0.8)),
            "routing": {"instruction": self.rng.choice(ASKS)},
        }
        stream = self.rng.random() < 0.5
        if stream:
            asked["stream"] = True

        def check(told: Any, _: object) -> None:
            events = events_of(told) if stream else [told]
            require(all(e["object"] == "text_completion" for e in events), "not completions")
            require("".join(c["text"] for e in events for c in e["choices"]), "nothing was written")

        self.ask(COMPLETIONS + (" (stream)" if stream else ""), COMPLETIONS, asked, check)

    @asking(1)
    def bad(self) -> None:
        """Something that must be refused."""
        self.refuse(self.rng.choice(BAD))


def events_of(body: Any) -> list[Any]:
    """The chunks of a stream that ended as it should.

    Raises:
        Wrong: it did not.
    """
    require(isinstance(body, str), "no stream of events")
    lines = [line.removeprefix("data: ") for line in body.split("\n\n") if line]
    require(lines[-1] == "[DONE]", "the stream was cut off")
    events = [json.loads(line) for line in lines[:-1]]
    require(not any("error" in e for e in events), f"the stream ended with an error: {events[-1]}")
    return events
