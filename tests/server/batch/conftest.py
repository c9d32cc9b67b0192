"""Files of requests, written by hand."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

URL = "/v1/decisions"
CHOICES = [{"value": "sunny"}, {"value": "rainy"}]
QUESTION = {"type": "choice", "instructions": "Say what the weather is like.", "choices": CHOICES}


def request(custom_id: str, text: str = "Not a cloud to be seen.", **more: Any) -> dict[str, Any]:
    body = {"model": "auto", "input": text, "questions": [QUESTION]}
    return {"custom_id": custom_id, "method": "POST", "url": URL, "body": body, **more}


@pytest.fixture
def write(tmp_path: Path) -> Callable[..., Path]:
    """Write a file of these lines, as JSON where they are not text already."""

    def write(*lines: object, name: str = "in.jsonl") -> Path:
        told = (line if isinstance(line, str) else json.dumps(line) for line in lines)
        path = tmp_path / name
        path.write_text("".join(f"{line}\n" for line in told))
        return path

    return write
