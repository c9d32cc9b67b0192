"""Whether a browser sends a request on behalf of a page of another site.

Such a page cannot read an answer, but what it sends is carried out all the same: on a server
without keys it could remove experts. Browsers say where a request comes from, and no page can
change that; other clients say nothing.
"""

from __future__ import annotations

from urllib.parse import urlsplit

from starlette.datastructures import Headers

OWN = frozenset({"same-origin", "none"})
"""What `Sec-Fetch-Site` says of a page of this server, and of an address that was typed."""
LOOKING = frozenset({"GET", "HEAD", "OPTIONS"})


def from_another_site(headers: Headers) -> bool:
    """By `Sec-Fetch-Site`, or by `Origin` where a browser does not send that (over plain HTTP)."""
    said = headers.get("sec-fetch-site")
    if said is not None:
        return said not in OWN
    origin = headers.get("origin")
    if origin is None:
        return False
    here = [headers.get("host", ""), *headers.get("x-forwarded-host", "").split(",")]
    names = {name.strip() for name in here} - {""}  # a page without an address says "null"
    try:
        return urlsplit(origin).netloc not in names
    except ValueError:  # no browser sends that
        return True
