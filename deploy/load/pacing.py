"""When the next request is due: after a pause (closed loop), or at random times of a given rate.

Closed loop: a user waits for its answer, so a slow server is asked less. Open loop: arrivals come
whether or not the server keeps up, as those of many strangers do. `Arrivals` draws their times and
knows how late it was in keeping to them, which tells a slow load generator from a slow server.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

STEPS = "R, or R:SECONDS,R:SECONDS,..., the last of which goes on"


@dataclass(frozen=True)
class Step:
    """A rate in requests per second, and how many seconds it holds."""

    rate: float
    seconds: float


def steps(text: str) -> list[Step]:
    """Rates as the command line names them: `40`, or `40:30,150:60,40:30`.

    Raises:
        ValueError: they are not like that.
    """
    found: list[Step] = []
    for part in text.split(","):
        rate, _, seconds = part.partition(":")
        try:
            step = Step(float(rate), float(seconds) if seconds else float("inf"))
        except ValueError:
            raise ValueError(f"--rate {text}: expected {STEPS}") from None
        if step.rate <= 0 or step.seconds <= 0:
            raise ValueError(f"--rate {text}: rates and seconds must be above 0")
        found.append(step)
    return found


class Arrivals:
    """A Poisson process whose rate changes by steps.

    Args:
        plan: the rates. began: when it starts, on the clock that all other times are on.
    """

    def __init__(self, plan: Sequence[Step], began: float, rng: random.Random) -> None:
        self.plan, self.began, self.rng = plan, began, rng
        self.due = began
        self.behind = 0.0
        """The most seconds that a request came late since `lag` was last asked."""

    def rate(self, now: float) -> float:
        """The rate in force."""
        left = now - self.began
        for step in self.plan:
            if left < step.seconds:
                return step.rate
            left -= step.seconds
        return self.plan[-1].rate

    def use_up(self) -> None:
        """One arrival is spent: draw the next."""
        self.due += self.rng.expovariate(self.rate(self.due))

    def wait(self, now: float) -> float:
        """Seconds until the next arrival; 0 if it is late, which is noted."""
        self.behind = max(self.behind, now - self.due)
        return max(0.0, self.due - now)

    def lag(self) -> float:
        """The worst lateness since this was asked before."""
        behind, self.behind = self.behind, 0.0
        return behind
