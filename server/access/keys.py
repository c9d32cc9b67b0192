"""API keys: what is kept of them, how one is made, and how one is told by what a caller sends.

A key reads `sp-<id>-<secret>`. The id is public and finds the key; of the whole only the SHA-256
is kept. A plain digest is enough: the secret is 32 random bytes, which nobody guesses. Knows
nothing of files and of HTTP.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Annotated, Literal, get_args

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field

from experts.manifest import Tag
from experts.scope import EVERYTHING, Scope

Permission = Literal["infer", "route:trace", "metrics", "admin"]
PERMISSIONS: frozenset[Permission] = frozenset(get_args(Permission))
TOKEN = re.compile(r"sp-(?P<id>[0-9a-f]{12})-[A-Za-z0-9_-]{43}")
NOBODY = "0" * 64
"""Compared with where there is no such key, so that a miss takes as long as a hit."""


class Limits(BaseModel):
    """How much one key may ask for; None is no limit.

    Attributes:
        requests_per_minute, tokens_per_minute: as a bucket that holds a minute's worth and fills
            evenly; tokens are those read and written, counted when the answer is there, or as far
            as a text came that nobody waited for.
        concurrent: requests being answered at one time.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    requests_per_minute: Annotated[int, Field(ge=1)] | None = None
    tokens_per_minute: Annotated[int, Field(ge=1)] | None = None
    concurrent: Annotated[int, Field(ge=1)] | None = None


NO_LIMITS = Limits()


class Key(BaseModel):
    """One key, as it stands in the file of keys: all but the key itself.

    Attributes:
        id: its public part. name: for people, in logs and metrics. sha256: of the whole key.
        permissions: what it may do. tags: it may use the experts that carry one of these; None:
            all experts. expires: when it ends.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    id: Annotated[str, Field(pattern=r"^[0-9a-f]{12}$")]
    name: Tag
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
    permissions: frozenset[Permission]
    tags: Annotated[frozenset[Tag], Field(min_length=1)] | None = None
    limits: Limits = NO_LIMITS
    expires: AwareDatetime | None = None

    @property
    def scope(self) -> Scope:
        """The experts it may use."""
        return EVERYTHING if self.tags is None else Scope(self.tags)

    @property
    def expired(self) -> bool:
        """Whether it has ended."""
        return self.expires is not None and self.expires <= datetime.now(UTC)


def make_key(
    name: str,
    permissions: Iterable[Permission],
    tags: Iterable[str] | None = None,
    limits: Limits = NO_LIMITS,
    expires: datetime | None = None,
) -> tuple[Key, str]:
    """A new key, and what its owner sends: it is told here and never again.

    Raises:
        ValidationError: a value does not fit; see `Key`.
    """
    id = secrets.token_hex(6)
    token = f"sp-{id}-{secrets.token_urlsafe(32)}"
    key = Key(
        id=id, name=name, sha256=digest(token), permissions=frozenset(permissions),
        tags=None if tags is None else frozenset(tags), limits=limits, expires=expires,
    )  # fmt: skip
    return key, token


def digest(token: str) -> str:
    """What is kept of a key."""
    return hashlib.sha256(token.encode()).hexdigest()


class Keyring:
    """The keys there are."""

    def __init__(self, keys: Iterable[Key] = ()) -> None:
        self.keys = tuple(keys)
        self._by_id = {key.id: key for key in self.keys}

    def find(self, token: str) -> Key | None:
        """The key that a caller sent, unless there is none such, or it has expired."""
        form = TOKEN.fullmatch(token)
        key = self._by_id.get(form["id"]) if form else None
        same = hmac.compare_digest(digest(token), key.sha256 if key else NOBODY)
        return key if key and same and not key.expired else None
