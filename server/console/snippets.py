"""What the console asks, as a line for a shell and as a few for the `openai` client.

Pure text: the same request that was sent, to be sent again by hand. A key stands as a variable.
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping
from pprint import pformat

VARIABLE = "SAILPLANE_KEY"
CALLS = {
    "/v1/decisions": "client.decisions.create",
    "/v1/completions": "client.completions.create",
    "/v1/chat/completions": "client.chat.completions.create",
    "/v1/embeddings": "client.embeddings.create",
}
"""What of the client sends a body to each route; others go by its plain `get`, `post`, `delete`."""
EXTENSIONS = ("routing",)
"""Fields that are not OpenAI's: the client sends them as `extra_body`."""
ROOT = "/v1"
"""Below it is what the client reaches."""


def as_curl(
    base: str, method: str, path: str, body: Mapping[str, object] | None = None, *,
    keyed: bool = False, streams: bool = False,
) -> str:  # fmt: skip
    """A request as a command for a POSIX shell.

    Args:
        base: address of the server. keyed: whether it wants a key. streams: whether to show the
            answer as it comes.
    """
    parts = ["curl", "-sN" if streams else "-s", f"{base}{path}"]
    if method not in ("GET", "POST"):
        parts[2:2] = ["-X", method]
    lines = [shlex.join(parts)]
    if keyed:
        lines.append(f'-H "Authorization: Bearer ${VARIABLE}"')
    if body is not None:
        lines.append("-H 'Content-Type: application/json'")
        said = json.dumps(body, ensure_ascii=False, indent=2)
        lines.append(f"-d {shlex.quote(said)}")
    return " \\\n  ".join(lines)


def as_openai(
    base: str, method: str, path: str, body: Mapping[str, object] | None = None, *,
    keyed: bool = False,
) -> str | None:  # fmt: skip
    """A request as a program; None where the client does not reach."""
    if not path.startswith(f"{ROOT}/"):
        return None
    key = f'os.environ["{VARIABLE}"]' if keyed else '"none"'
    return (
        ("import os\n\n" if keyed else "")
        + "from openai import OpenAI\n\n"
        + f'client = OpenAI(base_url="{base}{ROOT}", api_key={key})\n'
        + f"said = {_call(method, path, body)}\n"
        + (
            "for part in said:\n    print(part)\n"
            if body and body.get("stream")
            else "print(said)\n"
        )
    )


def _call(method: str, path: str, body: Mapping[str, object] | None) -> str:
    if body is None or path not in CALLS:
        sent = "" if body is None else f"    body={_literal(body)},\n"
        where = path.removeprefix(ROOT)
        return f'client.{method.lower()}(\n    "{where}",\n{sent}    cast_to=object,\n)'
    own = {name: value for name, value in body.items() if name not in EXTENSIONS}
    extra = {name: value for name, value in body.items() if name in EXTENSIONS}
    given = own | ({"extra_body": extra} if extra else {})
    arguments = "".join(f"    {name}={_literal(value)},\n" for name, value in given.items())
    return f"{CALLS[path]}(\n{arguments})"


def _literal(value: object) -> str:
    """A value as Python writes it, long ones over several lines."""
    return pformat(value, width=80, sort_dicts=False).replace("\n", "\n    ")
