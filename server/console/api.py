"""The console's way to the API: the requests that anybody could send, with the key of who looks.

They go to the same app by a relay, without a socket, and pass its gate, limits and log like all
others. Nothing that the console shows comes from anywhere else.
"""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote, urlencode

from server.relay.messages import Asked, Head, Headers, Relay

JSON = (b"content-type", b"application/json")
EVENT = b"data: "
DONE = b"[DONE]"


class Refused(Exception):
    """The server said no; `str` of it is the server's own sentence.

    Attributes:
        status, code: of the error. param: the field of the request that it is about.
        retry_after: seconds after which to ask again, where the server says so.
    """

    def __init__(
        self, message: str, *, status: int = 0, code: str | None = None, param: str | None = None,
        retry_after: float = 0.0,
    ) -> None:  # fmt: skip
        super().__init__(message)
        self.status, self.code, self.param = status, code, param
        self.retry_after = retry_after

    @classmethod
    def of(cls, status: int, body: bytes, headers: Headers = ()) -> Refused:
        """From an answer, whatever is in its body."""
        wait = dict(headers).get(b"retry-after", b"")
        later = float(wait) if wait.isdigit() else 0.0
        try:
            said = json.loads(body)["error"]
            return cls(said["message"], status=status, code=said.get("code"),
                       param=said.get("param"), retry_after=later)  # fmt: skip
        except (ValueError, KeyError, TypeError):
            words = f"The server answered with status {status}."
            return cls(words, status=status, retry_after=later)


@dataclass
class Api:
    """The API as one visitor may use it.

    Attributes:
        relay: to the app. key: of the visitor, "" without one. client: its address and port, for
            the audit log.
    """

    relay: Relay
    key: str = ""
    client: tuple[str, int] | None = None

    async def get(self, path: str, **query: object) -> Any:
        """The JSON of a page.

        Raises:
            Refused: the server said no.
        """
        return json.loads(await self._whole("GET", path, query=query))

    async def post(self, path: str, body: Mapping[str, object]) -> Any:
        """The JSON that a POST is answered with; see `get`."""
        return json.loads(await self._whole("POST", path, body))

    async def delete(self, path: str) -> None:
        """Remove what is there; see `get`."""
        await self._whole("DELETE", path)

    async def text(self, path: str) -> str:
        """A page that is no JSON, as text; see `get`."""
        return (await self._whole("GET", path)).decode()

    async def stream(self, path: str, body: Mapping[str, object]) -> AsyncGenerator[Any]:
        """The events of a stream, as they come. Closing it ends the work.

        Raises:
            Refused: the server said no, before the first event or in the middle.
        """
        waiting = b""
        async with aclosing(self.relay.ask(self._asked("POST", path, body))) as answer:
            async for message in answer:
                waiting += message.body
                if isinstance(message, Head) and message.status >= 400:
                    rest = await _rest(answer, message)
                    raise Refused.of(message.status, rest, message.headers)
                *events, waiting = waiting.split(b"\n\n")
                for event in events:
                    if (told := _event(event)) is not None:
                        yield told

    async def _whole(
        self, method: str, path: str, body: Mapping[str, object] | None = None,
        query: Mapping[str, object] | None = None,
    ) -> bytes:  # fmt: skip
        async with aclosing(self.relay.ask(self._asked(method, path, body, query))) as answer:
            head = await anext(answer)
            assert isinstance(head, Head), "an answer begins with its head"
            told = await _rest(answer, head)
        if head.status >= 400:
            raise Refused.of(head.status, told, head.headers)
        return told

    def _asked(
        self, method: str, path: str, body: Mapping[str, object] | None = None,
        query: Mapping[str, object] | None = None,
    ) -> Asked:  # fmt: skip
        headers = [(b"host", b"console"), (b"user-agent", b"sailplane-console")]
        if self.key:
            headers.append((b"authorization", f"Bearer {self.key}".encode()))
        sent = b"" if body is None else json.dumps(body).encode()
        if body is not None:
            headers += [JSON, (b"content-length", str(len(sent)).encode())]
        return Asked(
            method, path, quote(path).encode(), urlencode(query or {}).encode(), tuple(headers),
            sent, client=self.client,
        )  # fmt: skip


async def _rest(answer: AsyncGenerator[Any], head: Head) -> bytes:
    """The whole body of an answer whose head has come."""
    return head.body + b"".join([chunk.body async for chunk in answer])


def _event(event: bytes) -> Any:
    """What an event says; None of the last, which says that there is no more.

    Raises:
        Refused: it says that something failed.
    """
    said = event.removeprefix(EVENT)
    if said == DONE or not said:
        return None
    told = json.loads(said)
    if "error" in told:
        raise Refused.of(0, said)
    return told
