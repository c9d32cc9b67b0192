"""What every sort of user does: send a request, check its answer, keep to the pace.

One `World` per run holds what was found out about the server at the start, the timeline, and the
arrivals. Knows no task: those are in the locustfiles.
"""

from __future__ import annotations

import json
import os
import random
import time
import uuid
from collections.abc import Callable, Mapping
from typing import Any

from answers import Wrong, error, refused, require
from gevent.pool import Pool
from locust import FastHttpUser, task
from locust.clients import ResponseContextManager
from locust.contrib.fasthttp import FastResponse
from refusals import Refusal
from world import World

Check = Callable[[Any, Mapping[str, str]], None]
"""Looks at an answer's body and headers, and raises `Wrong`."""
KEY = os.environ.get("SAILPLANE_API_KEY", "")
OPEN_CONNECTIONS = 4096
TIMEOUT = 120.0
REFUSING = (429, 503)


def asking(weight: int) -> Callable[[Callable[[Any], None]], Callable[[Any], None]]:
    """A locust task that in an open loop runs beside the others, so that none waits for it."""

    def wrap(work: Callable[[Any], None]) -> Callable[[Any], None]:
        def begin(self: Caller) -> None:
            self.begin(work)

        begin.__name__ = work.__name__
        begin.__doc__ = work.__doc__
        return task(weight)(begin)

    return wrap


class Caller(FastHttpUser):
    """A user with a key, who checks what comes back."""

    abstract = True
    connection_timeout = network_timeout = TIMEOUT
    concurrency = OPEN_CONNECTIONS
    max_retries = 0
    paced = True
    """Whether `--rate` governs it."""

    def __init__(self, environment: Any) -> None:
        super().__init__(environment)
        self.world = World.of(environment)
        self.rng = random.Random(self.world.seed())
        self.arrivals = self.world.arrivals if self.paced else None
        self._beside = Pool(OPEN_CONNECTIONS)

    def wait_time(self) -> float:
        """Seconds until the next task: a thinking pause, or until the next arrival."""
        if self.arrivals is None:
            return self.rng.uniform(0.5, 1.5) * self.environment.parsed_options.think
        self.arrivals.use_up()
        return self.arrivals.wait(time.monotonic())

    def begin(self, work: Callable[[Any], None]) -> None:
        """Do a task now, or beside the others."""
        if self.arrivals is None:
            work(self)
        else:
            self._beside.spawn(work, self)

    def on_stop(self) -> None:
        """Let what is under way end: a cut request would count as the server's failure."""
        self._beside.join(timeout=TIMEOUT)

    def ask(
        self, name: str, path: str, body: object = None, check: Check | None = None, *,
        method: str = "POST", status: int = 200, follows: bool = False,
        refusable: bool = True,
    ) -> tuple[Any, str] | None:  # fmt: skip
        """Send a request and check its answer.

        Args:
            name: in the statistics. body: bytes as they are, all else as JSON. follows: whether the
                same task sent one before; in an open loop it takes the place of an arrival.
            refusable: whether `--allow-refusals` covers it.

        Returns:
            The body and the request's id; None if there is no right answer.
        """
        if follows and self.arrivals is not None:
            self.arrivals.use_up()
        id = uuid.uuid4().hex
        headers = {"X-Request-Id": id, "Content-Type": "application/json"}
        if KEY:
            headers["Authorization"] = f"Bearer {KEY}"
        data = body if isinstance(body, bytes) or body is None else json.dumps(body).encode()
        with self.client.request(
            method, path, name=name, data=data, headers=headers, catch_response=True,
            context={"world": self.world},
        ) as response:  # fmt: skip
            try:
                return self._checked(response, status, id, check, refusable)
            except Wrong as wrong:
                response.failure(f"wrong: {wrong}")
            except (KeyError, TypeError, IndexError, AttributeError) as broken:
                response.failure(f"wrong: the answer has another shape ({broken!r})")
        return None

    def _checked(
        self, response: FastResponse & ResponseContextManager, status: int, id: str,
        check: Check | None, refusable: bool,
    ) -> tuple[Any, str] | None:  # fmt: skip
        """What was answered, if it is as it should be."""
        got = response.status_code
        if not got:
            response.failure(response.error or Wrong("no answer"))
            return None
        text = response.text or ""
        try:
            told = json.loads(text) if text else {}
        except ValueError:
            told = text
        headers = response.headers
        if got in REFUSING and got != status:
            refused(got, headers, told)
            if refusable and self.environment.parsed_options.allow_refusals:
                response.request_meta["context"]["outcome"] = "refused"
                response.success()
                return None
        require(got == status, f"status {got} where {status} was expected: {text[:200]}")
        require(headers.get("x-request-id") == id, "the request id did not come back")
        if check is not None:
            check(told, headers)
        response.success()
        return told, id

    def refuse(self, bad: Refusal) -> None:
        """Send a bad request, and check that it is refused as it should be."""
        self.ask(
            f"bad: {bad.name}", bad.path, bad.body, lambda told, _: error(told, bad.code),
            method=bad.method, status=bad.status,
        )  # fmt: skip
