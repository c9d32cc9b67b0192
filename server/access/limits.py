"""How much each key has asked for lately, and whether it may ask for more.

Rates are pyrate-limiter's token buckets on the monotonic clock: a step of the wall clock locks
nobody out. Kept in this process: several replicas behind one address each allow as much.
"""

from __future__ import annotations

from collections.abc import Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from math import ceil

from pyrate_limiter import AbstractClock, MonotonicClock, Rate, RateItem, StateBucket, TokenBucket

from server.access.keys import Key, Limits
from server.errors import RateReached, TooManyAtOnce

MINUTE = 60_000


class Bucket:
    """So many units a minute; all of a minute's may be spent at once."""

    def __init__(self, limit: int, what: str, clock: AbstractClock | None = None) -> None:
        self.limit, self.what = limit, what
        self._bucket = StateBucket(
            [Rate(limit, MINUTE)], TokenBucket(), clock=clock or MonotonicClock()
        )
        self._owed = 0

    @property
    def left(self) -> int:
        """Units that may be spent now."""
        return max(0, self.limit - int(self._bucket.count()) - self._owed)  # type: ignore[arg-type]

    def owe(self, units: int) -> None:
        """Spend units that are used up already, whether there are as many or not."""
        self._owed += units

    def require(self, units: int) -> None:
        """Spend what is owed, and then these.

        Raises:
            RateReached: they are not there yet; nothing was spent on this request.
        """
        while self._owed:
            paid = min(self._owed, self.limit)
            self._spend(paid)
            self._owed -= paid
        if units:
            self._spend(units)

    def _spend(self, units: int) -> None:
        item = RateItem(self.what, self._bucket.now(), units)  # type: ignore[arg-type]
        if self._bucket.put(item):
            return
        wait = int(self._bucket.waiting(item)) / 1000  # type: ignore[arg-type]
        raise RateReached(
            f"This key may use {self.limit} {self.what} a minute.", retry_after=max(1, ceil(wait))
        )


@dataclass
class Meter:
    """What one key uses: its buckets, and its requests being answered."""

    limits: Limits
    running: int = 0
    requests: Bucket | None = field(init=False, default=None)
    tokens: Bucket | None = field(init=False, default=None)

    def __post_init__(self) -> None:
        if (most := self.limits.requests_per_minute) is not None:
            self.requests = Bucket(most, "requests")
        if (most := self.limits.tokens_per_minute) is not None:
            self.tokens = Bucket(most, "tokens")

    @contextmanager
    def admitted(self) -> Generator[None]:
        """Let a request in, and count it until it is answered.

        Raises:
            TooManyAtOnce, RateReached: it must wait.
        """
        most = self.limits.concurrent
        if most is not None and self.running >= most:
            raise TooManyAtOnce(f"This key may have {most} requests answered at one time.")
        if self.tokens:
            self.tokens.require(0)
        if self.requests:
            self.requests.require(1)
        self.running += 1
        try:
            yield
        finally:
            self.running -= 1

    @property
    def metered(self) -> bool:
        """Whether there is anything to tell of."""
        return self.requests is not None or self.tokens is not None

    def headers(self) -> Mapping[str, str]:
        """What is left, in the headers that OpenAI's clients know."""
        kinds = {"requests": self.requests, "tokens": self.tokens}
        return {
            f"x-ratelimit-{word}-{kind}": str(value)
            for kind, bucket in kinds.items()
            if bucket is not None
            for word, value in (("limit", bucket.limit), ("remaining", bucket.left))
        }


class Meters:
    """The meters of all keys; that of a key whose limits were changed begins anew."""

    def __init__(self) -> None:
        self._by_id: dict[str, Meter] = {}

    def of(self, key: Key) -> Meter:
        """The meter of a key."""
        meter = self._by_id.get(key.id)
        if meter is None or meter.limits != key.limits:
            meter = self._by_id[key.id] = Meter(key.limits)
        return meter
