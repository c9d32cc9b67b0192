"""What a run knows: its options, what the server is, who arrives when, and what happened.

One `World` per locust process. It asks the server at the start what it serves, writes the
timeline, and watches whether locust itself keeps up, so that its own failure is not taken for the
server's. Knows no task and no check.
"""

from __future__ import annotations

import json
import logging
import os
import random
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.error import HTTPError, URLError
from urllib.request import Request, urlopen

import gevent
from locust import events
from pacing import Arrivals, steps
from timeline import Timeline

log = logging.getLogger("load")
MOST_CPU, MOST_LAG = 0.9, 0.5
"""Above this share of a core, or so many seconds late, the client's figures are its own fault."""


@events.init_command_line_parser.add_listener
def _options(parser: Any) -> None:
    """Our options, beside locust's."""
    group = parser.add_argument_group("sailplane")
    group.add_argument(
        "--rate", default="", env_var="LOAD_RATE",
        help="Open loop: requests per second, or R:SECONDS,R:SECONDS,... Start two users then: one "
        "asks at that rate, the other operates. Without it users wait for answers (closed loop).",
    )  # fmt: skip
    group.add_argument(
        "--think", type=float, default=1.0, env_var="LOAD_THINK",
        help="Closed loop: mean pause of a user between two tasks, in seconds.",
    )  # fmt: skip
    group.add_argument(
        "--adapter", default="", env_var="LOAD_ADAPTER",
        help="A LoRA adapter's folder, as the server sees it, below its --adapter-root: adds and "
        "removes experts made of it.",
    )  # fmt: skip
    group.add_argument(
        "--allow-refusals", action="store_true", env_var="LOAD_ALLOW_REFUSALS",
        help="A 503 or 429 with Retry-After is no failure.",
    )  # fmt: skip
    group.add_argument(
        "--timeline", default="", env_var="LOAD_TIMELINE",
        help="Write what happened in every second to this file, as JSON lines.",
    )  # fmt: skip
    group.add_argument(
        "--seed", type=int, default=None, env_var="LOAD_SEED", help="Of all that is drawn."
    )


class Unusable(RuntimeError):
    """The server cannot be asked; the message says why."""


class World:
    """The state of one run.

    Attributes:
        experts: ids of the experts seen so far. labelled: of those that can judge a statement.
            backbone: its id. width: of an embedding, None
            where the backbone gives none. logged: whether the server keeps a routing log.
    """

    def __init__(self, environment: Any) -> None:
        options = environment.parsed_options
        self.host = environment.host
        self._rng = random.Random(options.seed)
        self.experts: set[str] = set()
        self.labelled: set[str] = set()
        self.backbone, self.width, self.logged = "", None, False
        self._find_out()
        plan = steps(options.rate) if options.rate else None
        began = time.monotonic() + 0.1
        self.arrivals = Arrivals(plan, began, random.Random(self.seed())) if plan else None
        self._cpu, self._at, self._busy = time.process_time(), time.monotonic(), 0
        self.warned = False
        self.timeline = Timeline(Path(options.timeline), self.own) if options.timeline else None

    @staticmethod
    def of(environment: Any) -> World:
        """The world of this run."""
        return environment.world

    def seed(self) -> int:
        """Another seed for each who asks."""
        return self._rng.getrandbits(32)

    def own(self) -> Mapping[str, float]:
        """How busy and how late locust was since this was asked before; warns if too much."""
        cpu, at = time.process_time(), time.monotonic()
        share = (cpu - self._cpu) / max(at - self._at, 1e-6)
        self._cpu, self._at = cpu, at
        lag = self.arrivals.lag() if self.arrivals else 0.0
        self._busy = self._busy + 1 if share > MOST_CPU else 0
        if (self._busy == 5 or lag > MOST_LAG) and not self.warned:
            self.warned = True
            log.warning(
                "The load generator cannot keep up (CPU %.0f%%, %.1f s late): slow answers may be "
                "its own. Ask for less, or give it more cores (--processes).", 100 * share, lag,
            )  # fmt: skip
        return {"client_cpu": round(share, 3), "client_lag": round(lag, 4)}

    def watch(self) -> None:
        """Keep the timeline going."""
        while self.timeline is not None:
            gevent.sleep(1.0)
            self.timeline.tick()

    def _find_out(self) -> None:
        """Ask what the server serves.

        Raises:
            Unusable: it does not answer, or wants a key.
        """
        listed = self._get("/v1/experts")
        self.experts = {e["id"] for e in listed["data"]}
        self.labelled = {e["id"] for e in listed["data"] if e["labels"]}
        special = [m["id"] for m in self._get("/v1/models")["data"] if m["parent"] is None]
        self.backbone = next(id for id in special if id != "auto")
        told = self._get("/v1/embeddings", {"model": self.backbone, "input": "width"}, or_else={})
        if told:
            self.width = len(told["data"][0]["embedding"])
        heard = {"request_id": "load", "question": 0, "correct": True}
        self.logged = bool(self._get("/v1/feedback", heard, or_else={}))

    def _get(self, path: str, body: object = None, or_else: object = None) -> Any:
        headers = {"Content-Type": "application/json"}
        if key := os.environ.get("SAILPLANE_API_KEY"):
            headers["Authorization"] = f"Bearer {key}"
        data = None if body is None else json.dumps(body).encode()
        try:
            with urlopen(Request(f"{self.host}{path}", data, headers), timeout=60) as answer:
                return json.load(answer)
        except HTTPError as error:
            if or_else is not None and error.code not in (401, 403):
                return or_else
            hint = " Set SAILPLANE_API_KEY." if error.code in (401, 403) else ""
            raise Unusable(f"{path} answered {error.code}.{hint}") from None
        except (URLError, OSError) as error:
            raise Unusable(f"{self.host}{path}: {error}") from None


@events.test_start.add_listener
def _begin(environment: Any, **_: object) -> None:
    try:
        environment.world = World(environment)
    except (Unusable, ValueError) as error:
        log.error("%s", error)
        environment.process_exit_code = 2
        environment.runner.quit()
        raise SystemExit(2) from None
    gevent.spawn(environment.world.watch)


@events.request.add_listener
def _count(
    name: str, response_time: float, context: Mapping[str, Any], exception: object, **_: object
) -> None:
    world = context.get("world")
    if world is not None and world.timeline is not None:
        outcome = "failed" if exception else context.get("outcome", "answered")
        world.timeline.add(name, outcome, response_time)


@events.test_stop.add_listener
def _end(environment: Any, **_: object) -> None:
    world = getattr(environment, "world", None)
    if world is not None and world.timeline is not None:
        timeline, world.timeline = world.timeline, None
        timeline.close()
