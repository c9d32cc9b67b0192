"""Load for a server that answers questions: `locust -f deploy/load/locustfile.py --host URL`.

Two sorts of users. An `Asker` asks, embeds, sends feedback, and now and then something bad. One
`Operator` looks at lists and metrics, and adds and removes experts where it is told of an adapter
(`--adapter`). Every answer is checked (`answers.py`), not only its status. Set SAILPLANE_API_KEY
where the server wants a key. `locustfile_text.py` is for a server that writes text.
"""

from __future__ import annotations

import uuid
from typing import Any

import answers
from callers import Caller, asking
from locust import constant, task
from questions import Questions, choice
from refusals import REFUSALS, too_large

BODY_LIMIT = 4 << 20
"""The server's default."""
MADE = "load-"
"""How the ids begin of experts that are made here."""


class Asker(Caller):
    """Asks what clients ask, in about their proportions."""

    def __init__(self, environment: Any) -> None:
        super().__init__(environment)
        self.questions = Questions(self.rng, self.world.experts)

    def decide(self, name: str, asked: dict[str, Any], right: list[str | None]) -> str | None:
        """Ask questions; the request's id if they were answered."""
        known, labelled = self.world.experts, self.world.labelled
        told = self.ask(
            name, "/v1/decisions", asked,
            lambda t, _: answers.decision(asked, t, known, right, labelled),
        )  # fmt: skip
        return told[1] if told else None

    @asking(60)
    def decisions(self) -> None:
        """Questions about a text; for some answers, whether they were right."""
        asked, right = self.questions.decision()
        id = self.decide("/v1/decisions", asked, right)
        if id and right[0] and self.world.logged:
            heard = {"request_id": id, "question": 0, "correct": True}
            self.ask("/v1/feedback", "/v1/feedback", heard, status=202, follows=True)

    @asking(4)
    def booking(self) -> None:
        """The README's own two questions."""
        self.decide("/v1/decisions (README)", *self.questions.booking())

    @asking(10)
    def route(self) -> None:
        """Who would answer, without an answer."""
        asked, known = self.questions.route(), self.world.experts
        self.ask("/v1/route", "/v1/route", asked, lambda t, _: answers.routing(asked, t, known))

    @asking(14)
    def embeddings(self) -> None:
        """Vectors; of a list also those of its first text again, with the same selection."""
        asked, known, width = self.questions.embedding(), self.world.experts, self.world.width
        found: list[list[float]] = []

        def check(told: Any, _: object) -> None:
            found[:] = answers.embeddings(asked, told, width, known)

        several = isinstance(asked["input"], list)
        name = "/v1/embeddings" + (" (list)" if several else "")
        told = self.ask(name, "/v1/embeddings", asked, check)
        if told is None or not several:
            return
        (first, *_) = asked["input"]
        again = {"model": "auto", "input": first}
        selection = told[0]["routing"]["selection"]
        again["routing"] = {"selection": selection}
        brief = any(e["id"].startswith(MADE) for e in selection["experts"])

        def equal(told: Any, _: object) -> None:
            answers.same(found[0], answers.embeddings(again, told, width, known)[0])

        if not brief:  # an expert that the operator is about to remove cannot be named again
            self.ask("/v1/embeddings (again)", "/v1/embeddings", again, equal, follows=True)

    @asking(3)
    def models(self) -> None:
        """What may stand in `model`."""
        wanted = {"auto", self.world.backbone, *self.questions.known}
        self.ask(
            "/v1/models", "/v1/models", None, lambda t, _: answers.listed(t, wanted), method="GET"
        )

    @asking(5)
    def bad(self) -> None:
        """Something that must be refused."""
        self.refuse(self.rng.choice(REFUSALS))


class Operator(Caller):
    """Looks at the server, and changes its library. Its adapter may be any LoRA of the backbone."""

    fixed_count = 1
    paced = False
    wait_time = constant(5)

    def __init__(self, environment: Any) -> None:
        super().__init__(environment)
        self.questions = Questions(self.rng, self.world.experts)
        self.made: set[str] = set()

    @task(2)
    def look(self) -> None:
        """Metrics and the list of experts."""
        wanted = self.questions.known
        self.ask(
            "/v1/experts", "/v1/experts", None, lambda t, _: answers.listed(t, wanted), method="GET"
        )
        for path in ("/ready", "/metrics"):
            self.ask(path, path, None, method="GET", refusable=False)

    @task(1)
    def too_large(self) -> None:
        """A body that is too large."""
        self.refuse(too_large(BODY_LIMIT))

    @task(2)
    def change(self) -> None:
        """Add an expert, ask it, remove it, ask in vain."""
        if not self.environment.parsed_options.adapter:
            return
        id = f"{MADE}{uuid.uuid4().hex[:12]}"
        body = {
            "id": id,
            "source": self.environment.parsed_options.adapter,
            "instructions": ["Say which colour the heraldic shield of the town has."],
        }
        self.world.experts.add(id)  # from now on a trace may name it
        self.made.add(id)
        if not self.ask(
            "/v1/experts (add)", "/v1/experts", body,
            lambda t, _: answers.require(t["id"] == id, "another expert was added"),
            status=201, refusable=False,
        ):  # fmt: skip
            return
        asked = {
            "model": id,
            "input": self.questions.text(),
            "questions": [choice("Which colour has the shield?", ("red", "blue"))],
        }
        known = self.world.experts
        self.ask(
            "/v1/decisions (new expert)", "/v1/decisions", asked,
            lambda t, _: answers.decision(asked, t, known),
        )  # fmt: skip
        self.remove(id)
        self.ask(
            "/v1/decisions (removed expert)", "/v1/decisions", asked,
            lambda t, _: answers.error(t, "model_not_found"), status=404,
        )  # fmt: skip

    def remove(self, id: str) -> None:
        """Remove an expert that was made here."""
        path = f"/v1/experts/{id}"
        if self.ask("/v1/experts (remove)", path, method="DELETE", status=204, refusable=False):
            self.made.discard(id)

    def on_stop(self) -> None:
        """Leave the library as it was."""
        for id in list(self.made):
            self.remove(id)
        super().on_stop()
