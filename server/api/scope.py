"""What the caller of a request may use: what its key may, and of that what the request says.

`X-Sailplane-Tags: team-a, public` limits it to the experts that carry one of these tags. A server
behind a gateway has the gateway set it; it is a limit, and no proof of who calls. A key is one.
"""

from __future__ import annotations

from typing import Annotated

from fastapi import Depends, Header, Request, Security
from fastapi.security import HTTPBearer

from experts.manifest import TAG_FORM, is_tag
from experts.scope import Scope
from server.access.caller import caller_of
from server.errors import NotAllowed, RequestError

HEADER = "X-Sailplane-Tags"
MAX_TAGS = 64


def scope_of(request: Request) -> Scope:
    """What the caller may use: all that its key may, unless the request limits it further.

    Raises:
        RequestError: the header is there and says nothing, or something that is no tag.
        NotAllowed: it says a tag that the key has not.
    """
    own = caller_of(request.scope).scope
    said = request.headers.getlist(HEADER)
    if not said:
        return own
    asked = parse_scope(",".join(said))
    if own.tags is not None and (others := sorted((asked.tags or set()) - own.tags)):
        raise NotAllowed(f"{HEADER}: this key has no tag {others[0]!r}.", param=HEADER)
    return asked


def parse_scope(text: str) -> Scope:
    """The scope that tags separated by commas stand for.

    Raises:
        RequestError: one of them is none, or there are none, or too many.
    """
    tags = [tag.strip(" \t") for tag in text.split(",")]
    if odd := [tag for tag in tags if not is_tag(tag)]:
        raise RequestError(
            f"{HEADER}: {odd[0]!r} is no tag: {TAG_FORM}; tags are separated by commas. To use "
            "everything, leave the header out.",
            param=HEADER,
        )
    if len(tags) > MAX_TAGS:
        raise RequestError(f"{HEADER} has {len(tags)} tags, and may have {MAX_TAGS}.", param=HEADER)
    return Scope(frozenset(tags))


def _documented(
    tags: Annotated[
        str | None,
        Header(
            alias=HEADER,
            description="Use only experts that carry one of these tags.",
            json_schema_extra={
                "pattern": r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}"
                r"(, ?[A-Za-z0-9][A-Za-z0-9._-]{0,63}){0,63}$"
            },
        ),
    ] = None,
) -> None:
    """The header in the OpenAPI document; `scope_of` reads it."""


LIMITED = Depends(_documented)
"""Stands at every route that heeds the header."""
KEYED = Security(
    HTTPBearer(auto_error=False, description="A key of this server, where it has keys.")
)
"""Stands at every route that needs a key; the gate reads it (`server.access.gate`)."""
