"""A running server's library, as any client sees it: over HTTP.

Knows the routes and the shape of errors; of experts no more than where their folders are.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from http import HTTPStatus

import httpx

from experts.entries import Entry
from experts.scope import without_others
from server.api.wire.examples import MAX_EXAMPLES
from server.errors import RemoteError

PATIENCE = 60.0
"""Seconds that a server may take to answer: it checks and describes what it is given."""


class RemoteLibrary:
    """The experts of the server that `client` speaks to."""

    def __init__(self, client: httpx.Client) -> None:
        self._client = client

    def require_ready(self) -> None:
        """Check that the server answers.

        Raises:
            RemoteError: it does not, or not yet.
        """
        self._ask("GET", "/ready")

    def require_free(self, ids: Collection[str]) -> None:
        """Check that the server has no expert of these names.

        Raises:
            RemoteError: it has one, or cannot be reached.
        """
        if taken := sorted({str(e["id"]) for e in self._experts()} & set(ids)):
            raise RemoteError(
                f"{self._client.base_url} has experts of these names already, made elsewhere: "
                f"{', '.join(taken)}. Remove them there, or rename the task folders."
            )

    def join(self, entry: Entry, inputs: Sequence[str] = ()) -> bool:
        """Have the server serve an expert, from its folder; whether it did not before.

        One that the server has without the gates that are in the folder is replaced by it.

        Args:
            inputs: of its task. The server describes it by some of them, as its own library's
                metric sees them: what the folder tells of inputs is by no metric or by another's.

        Raises:
            RemoteError: the server cannot be reached, or refuses; an expert of the same name that
                was trained otherwise stays as it is.
        """
        source = entry.path.resolve()
        some = [text for text in inputs if text.strip()][:MAX_EXAMPLES]
        body = {"source": str(source), "examples": some}
        served = self._served(entry)
        try:
            if served is None:
                self._ask("POST", "/v1/experts", {"id": entry.id, **body})
            elif "gate" in entry.read_artefacts().vectors and not served["gates"]:
                self._ask("PUT", f"/v1/experts/{entry.id}", body)
            else:
                return False
        except RemoteError as error:
            if error.status != HTTPStatus.FORBIDDEN:
                raise
            hint = f"Start it with --adapter-root {source.parent}."
            raise RemoteError(f"{error.message} {hint}", error.status) from None
        return True

    def _served(self, entry: Entry) -> dict[str, object] | None:
        """What the server tells of an expert of this name that was made in the same way."""
        made = entry.manifest.provenance
        told = made, without_others(made)  # to a key for all, to a limited one
        found = (e for e in self._experts() if e["id"] == entry.id and e["provenance"] in told)
        return next(found, None)

    def _experts(self) -> list[dict[str, object]]:
        return self._ask("GET", "/v1/experts").json()["data"]

    def _ask(self, method: str, path: str, body: object = None) -> httpx.Response:
        where = self._client.base_url.join(path)
        try:
            response = self._client.request(method, path, json=body)
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise RemoteError(f"{where} cannot be reached: {error}") from error
        if not response.is_success:
            raise RemoteError(f"{where} says: {_reason(response)}", response.status_code)
        return response


def _reason(response: httpx.Response) -> str:
    """The message of an error, or its status where the answer is not a server of ours's."""
    try:
        return str(response.json()["error"]["message"])
    except (ValueError, KeyError, TypeError):
        return f"{response.status_code} {response.reason_phrase}"
