"""A short load of all kinds: what a server is asked in a day, in seconds.

Known and unknown tasks, routing alone, embeddings, errors of the client, experts that join, fail
and leave, texts as a whole and as a stream. Its answers are looked at: a load of errors is none.
"""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

LIBRARY = Path(__file__).parents[2] / "library"
INPUTS = (
    "Book a table for four at the tapas bar by the harbour tonight.",
    "A warm, funny film that I wanted to see again at once.",
    "The central bank left its rate where it was, and shares fell a little.",
    "My card was charged twice for the same train ticket.",
    "Le train de nuit part à vingt-deux heures.",
    "The heart muscle thickened although the pressure was normal.",
    "zx qv 0x1f ~~ lorem",
)
QUESTIONS = (
    ("What does the user want the assistant to do?", ("book a restaurant", "play music")),
    ("Which language is this text written in?", ("English", "French", "German")),
    ("Is the review positive or negative?", ("positive", "negative")),
    ("Which section of the paper is this from?", ("Business", "Sports", "World")),
    ("Which colour would a painter mix first?", ("ochre", "teal", "plum")),
)
EXAMPLES = [
    {"input": f"{what} number {n}.", "label": label}
    for label, what in (("up", "The glider climbs in lift"), ("down", "It sinks on final approach"))
    for n in range(6)
]
DAMAGED, NEWCOMER = "cola", "newcomer"
WORDS = ("melon", "harbour", "glider", "thermal", "anchor", "lantern")
TASKS = (
    "Spell it backwards.", "Write it in capitals.", "Spell out the month of this date.",
    "Recite the third law of thermodynamics.",
)  # fmt: skip


@dataclass
class Traffic:
    """Requests to one server."""

    client: httpx.Client
    answered: int = 0

    def post(self, path: str, body: object, expected: int = 200) -> Any:
        response = self.client.post(path, json=body)
        assert response.status_code == expected, f"{path}: {response.text[:500]}"
        self.answered += 1
        return response.json()

    def ask(self, n: int, path: str = "/v1/decisions", model: str = "auto", **routing: Any) -> None:
        """One question; every seventh has no instruction, so that the template writes it."""
        said, choices = QUESTIONS[n % len(QUESTIONS)]
        question = {"type": "choice", "choices": [{"value": c} for c in choices]}
        if n % 7:
            question["instructions"] = said
        body = {"model": model, "input": f"{INPUTS[n % len(INPUTS)]} {n}", "questions": [question]}
        self.post(path, body | ({"routing": routing} if routing else {}))

    def decisions(self, count: int, at_once: int) -> None:
        with ThreadPoolExecutor(at_once) as threads:
            list(threads.map(self.ask, range(count)))

    def other_answers(self) -> None:
        """Named experts, weights, token mode, the bare backbone, routing, embeddings."""
        for n in range(6):
            self.ask(n, model="sst2")
            self.ask(n, experts={"sst2": 0.7, "tweet_emotion": 0.3})
            self.ask(n, mode="token", router="glider")
            self.ask(n, truncate=True)
            self.ask(n, "/v1/route")
            self.post("/v1/embeddings", {"model": "auto", "input": list(INPUTS)})
        self.post(
            "/v1/embeddings",
            {"model": "auto", "input": "word " * 2000, "routing": {"truncate": True}},
        )

    def mistakes(self) -> None:
        """What a client does wrong, and the one that the engine finds."""
        self.post("/v1/decisions", {"model": "nobody", "input": "x", "questions": []}, 422)
        self.post("/v1/embeddings", {"model": "nobody", "input": "x"}, 404)
        self.post("/v1/embeddings", {"model": "auto", "input": "word " * 2000}, 422)
        assert self.client.post("/v1/route", content=b"{").status_code == 400
        assert self.client.get("/nowhere").status_code == 404

    def experts_come(self, source: Path, root: Path) -> None:
        """One joins with examples to be fitted; one's weights are not those it was added with."""
        response = self.client.post("/v1/embeddings", json={"model": DAMAGED, "input": "x"})
        assert response.json()["error"]["code"] == "bad_expert", response.text
        whole = shutil.copytree(source, root / "whole")
        self.post("/v1/experts", {
            "source": str(whole), "id": NEWCOMER, "examples": EXAMPLES,
            "choices": [{"value": "up"}, {"value": "down"}],
            "instructions": ["Say whether the glider climbs or sinks."],
        }, 201)  # fmt: skip
        self.ask(1, model=NEWCOMER)

    def experts_go(self) -> None:
        """The one that joined leaves, once it has been fitted."""
        for _ in range(240):
            fit = self.client.get(f"/v1/experts/{NEWCOMER}").json()["fit"]
            if fit["state"] in ("done", "failed"):
                break
            time.sleep(0.5)
        assert fit["state"] == "done", fit
        assert self.client.delete(f"/v1/experts/{NEWCOMER}").is_success

    def texts(self, count: int, at_once: int) -> None:
        """Chats, every second one as a stream; some prompts begin alike."""
        with ThreadPoolExecutor(at_once) as threads:
            list(threads.map(self.chat, range(count)))

    def chat(self, n: int) -> None:
        body: dict[str, object] = {
            "model": "auto", "max_tokens": 24, "temperature": n % 3 / 2,
            "messages": [{"role": "system", "content": TASKS[n % len(TASKS)]},
                         {"role": "user", "content": WORDS[n % len(WORDS)]}],
        }  # fmt: skip
        if n % 2:
            self.post("/v1/chat/completions", body)
            return
        with self.client.stream("POST", "/v1/chat/completions", json={**body, "stream": True}) as r:
            assert r.status_code == 200, r.read()
            chunks = [line[6:] for line in r.iter_lines() if line.startswith("data: ")]
        assert chunks[-1] == "[DONE]"
        assert "error" not in json.loads(chunks[-2])
        self.answered += 1


def demo_library(folder: Path) -> Path:
    """A copy of the demo's library in which one expert is damaged: its first use finds out."""
    library = shutil.copytree(LIBRARY / "minilm", folder / "library")
    weights = library / DAMAGED / "adapter_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-8] + bytes(8))
    return library


def traffic(address: str) -> Traffic:
    return Traffic(httpx.Client(base_url=f"http://{address}", timeout=60))


def ask_everything(encoder: str, library: Path, adapters: Path, seconds: float) -> int:
    """The load on the server that decides, for at least so long."""
    load, end = traffic(encoder), time.monotonic() + seconds
    load.other_answers()
    load.mistakes()
    load.experts_come(library / "sst2", adapters)
    load.decisions(40, 1)
    load.decisions(100, 8)
    while time.monotonic() < end:
        load.decisions(100, 8)
    load.experts_go()
    return load.answered


def write_everything(writer: str, seconds: float) -> int:
    """The load on the server that writes, for at least so long."""
    load, end = traffic(writer), time.monotonic() + seconds
    while time.monotonic() < end:
        load.texts(8, 1)
        load.texts(48, 12)
        load.ask(1, "/v1/route")
    return load.answered


def both(parts: Sequence[tuple[Any, ...]]) -> list[Any]:
    """Functions with their arguments, each in a thread of its own."""
    with ThreadPoolExecutor(len(parts)) as threads:
        started = [threads.submit(*part) for part in parts]
        return [each.result() for each in started]
